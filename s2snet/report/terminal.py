def summary(folder):
    pass

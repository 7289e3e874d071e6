def torch(): pass

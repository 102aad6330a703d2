"""Course assignments cut from satnp, and the tool that marks them: python -m lessons.assignments build | grade"""

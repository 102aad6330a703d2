"""Course assignments cut from satnp, and the tool that grades them: python -m lessons.assignments build | grade"""

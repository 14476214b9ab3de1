"""Settings chosen on tuning people alone: ``healthfm-tune``.

Nothing here scores anybody who is held out, and nothing here can: the trials train at stores in
which the test people do not exist (`stores_without_test_people`), and what scores models is not
imported (an import contract says so).
"""

"""Before round 1: the sites answer, the study is agreed and signed, each site prepares."""

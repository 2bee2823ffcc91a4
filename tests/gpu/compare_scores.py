#!/usr/bin/env python3
"""compare_scores.py NAME A.csv B.csv ALLOWED: the largest difference of a probability between two tables of gm_infer.
Exit status 1 when it is larger than ALLOWED or when the tables have other images."""
import csv
import sys

name, first, second, allowed = sys.argv[1:]
a, b = (list(csv.DictReader(open(path))) for path in (first, second))
if [row["id_str"] for row in a] != [row["id_str"] for row in b]:
    sys.exit(f"{name}: other images")
scores = [column for column in a[0] if column.startswith("p_")]
worst = max(abs(float(x[c]) - float(y[c])) for x, y in zip(a, b) for c in scores)
print(f"{name}: {len(a)} images, largest difference of a probability {worst:.2g}, allowed {float(allowed):g}")
sys.exit(not worst <= float(allowed))

#!/usr/bin/env python3
"""Writes the accuracy table of README.md from the summaries of gm_train --cross-validate.

    tools/accuracy_table.py --readme README.md --speed tests/accuracy/speed.jsonl tests/accuracy/*.json

The table replaces what stands between the two marker lines; without --readme it is printed. Scores are means and
sample standard deviations over folds, from predictions of images that the fold's model has not seen. Speed is that of
the training runs, whatever else the machine did meanwhile; with --speed it is what gm_bench measured alone, one line of
`gm_bench --model FILE --mode train|infer --json` each.
"""
import argparse
import json
import sys

BEGIN = "<!-- accuracy table: begin (tools/accuracy_table.py) -->"
END = "<!-- accuracy table: end -->"


def fail(message):
    sys.exit("accuracy_table.py: error: " + message)


def read(path, what, parse):
    """parse(text of the file), any fault in one line; what: the program that writes such files."""
    try:
        with open(path, encoding="utf-8") as f:
            return parse(f.read())
    except OSError as e:
        fail(f"{path}: {e.strerror}")
    except ValueError as e:
        fail(f"{path}: not valid JSON: {e}")
    except (KeyError, TypeError) as e:
        fail(f"{path}: not written by {what}: {e} is missing")


def read_summary(path):
    def parse(text):
        s = json.loads(text)
        if s["folds_finished"] != s["folds"]:
            fail(f"{path}: only {s['folds_finished']} of {s['folds']} folds are finished")
        for key in ("network", "data", "input_size", "recipe", "epochs", "seed", "classes", "params_trainable", "macs"):
            s[key]
        for part in ("mean", "std"):
            for key in ("accuracy", "macro_precision", "macro_recall", "weighted_f1", "class_accuracy",
                        "images_per_second"):
                s[part][key]
        return s
    return read(path, "gm_train --cross-validate", parse)


def read_speed(path):
    """Images per second by network, input size and mode."""
    def parse(text):
        lines = [json.loads(line) for line in text.splitlines() if line.strip()]
        return {(b["model"], b["input"], b["mode"]): b["images_per_second"] for b in lines}
    return read(path, "gm_bench --model FILE --json", parse)


def percent(mean, std):
    return f"{100 * mean:.1f} ± {100 * std:.1f}"


def data_name(path):
    name = path.rstrip("/").split("/")[-1]
    return name.rsplit(".", 1)[0] if "." in name else name


def table(summaries, speed):
    """One table per list of classes, in the order of the files."""
    text = []
    by_classes = {}
    for s in summaries:
        by_classes.setdefault((data_name(s["data"]), tuple(s["classes"])), []).append(s)
    for (data, classes), rows in by_classes.items():
        columns = ["Network", "Input", "Recipe", "Accuracy, %", "Macro precision, %", "Macro recall, %",
                   "Weighted F1, %"] + [f"{c}, %" for c in classes] + ["Parameters", "MACs", "Training, img/s"]
        if speed:
            columns.append("Inference, img/s")
        text.append(f"*{data}*:")
        text.append("")
        text.append("| " + " | ".join(columns) + " |")
        text.append("|" + "---|" * len(columns))
        for s in rows:
            mean, std = s["mean"], s["std"]
            cells = [s["network"], f"{s['input_size']} px", f"`{s['recipe']}`, {s['epochs']} epochs, {s['folds']} folds, "
                     f"seed {s['seed']}"]
            for key in ("accuracy", "macro_precision", "macro_recall", "weighted_f1"):
                cells.append(percent(mean[key], std[key]))
            cells += [percent(m, d) for m, d in zip(mean["class_accuracy"], std["class_accuracy"])]
            cells += [f"{s['params_trainable']:,}", f"{s['macs'] / 1e6:.1f} M"]
            if speed:
                for mode in ("train", "infer"):
                    rate = speed.get((s["network"], s["input_size"], mode))
                    cells.append("" if rate is None else f"{rate:.0f}")
            else:
                cells.append(f"{mean['images_per_second']:.0f}")
            text.append("| " + " | ".join(cells) + " |")
        text.append("")
    return "\n".join(text)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("summaries", nargs="+", metavar="SUMMARY.json")
    parser.add_argument("--readme", help="file with the two marker lines")
    parser.add_argument("--speed", help="lines of gm_bench --model FILE --json")
    args = parser.parse_args()
    text = table([read_summary(p) for p in args.summaries], read_speed(args.speed) if args.speed else None)
    if not args.readme:
        print(text, end="")
        return
    try:
        with open(args.readme, encoding="utf-8") as f:
            readme = f.read()
    except OSError as e:
        fail(f"{args.readme}: {e.strerror}")
    if readme.count(BEGIN) != 1 or readme.count(END) != 1 or readme.index(END) < readme.index(BEGIN):
        fail(f"{args.readme}: needs the lines '{BEGIN}' and '{END}' once each, in this order")
    before, after = readme[:readme.index(BEGIN)], readme[readme.index(END):]
    with open(args.readme, "w", encoding="utf-8") as f:
        f.write(before + BEGIN + "\n\n" + text + "\n" + after)


if __name__ == "__main__":
    main()

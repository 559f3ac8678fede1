#!/usr/bin/env python3
"""Makes crates/selma-eval/tests/fixtures/dsg: a small annotation file with every malformation that DSG-1k has,
answers to it, and the scores that follow from a plain re-telling of the two reference programs:

- j-min/DSG, dsg/data_utils.py (how dependencies are read), dsg/vqa_utils.py calc_vqa_score, scripts/t2i_eval_dsg1k.py
- jialuli-luka/SELMA, DSG/evaluation.py

Usage: python3 tools/make_dsg_fixtures.py   (standard library only)
"""
import csv
import json
from pathlib import Path

OUT = Path(__file__).resolve().parent.parent / "crates/selma-eval/tests/fixtures/dsg"
COLUMNS = ["item_id", "text", "keywords", "proposition_id", "dependency", "category_broad", "category_detailed",
           "tuple", "question_natural_language"]

# item: (prompt, [(proposition, dependency cell, broad, detailed, keywords, question, answer)])
ITEMS = {
    # A chain: only a cascade zeroes the grandchild.
    "count_1": ("two red cubes on a mat, \"seen\" from above", [
        (1, "0", "entity", "whole", "cubes", "Are there cubes?", "no"),
        (2, "1", "attribute", "color", "cubes, red", "Are the cubes red?", "yes"),
        (3, "2", "attribute", "state", "cubes, red, above", "Are the red cubes seen from above?", "yes"),
        (4, "0", "entity", "whole", "mat", "Is there a mat?", "yes"),
        (5, "1,4", "relation", "spatial", "cubes, mat, on", "Are the cubes on the mat?", "yes"),
    ]),
    # A word in a cell: the official reader drops the graph of the item, SELMA's passes over the word.
    "pose_1": ("a figure bends\nforward", [
        (1, "0", "entity", "whole", "figure", "Is there a figure?", "no bus"),
        (2, "1, forward", "relation", "spatial", "figure, forward", "Does the figure bend forward?", "yes"),
        (3, "1", "attribute", "state", "figure, bent", "Is the figure bent?", "yes"),
    ]),
    # A space in a cell: an integer to the official reader, no known proposition to SELMA's.
    "pose_2": ("a bird and a fish side by side", [
        (1, "0", "entity", "whole", "bird", "Is there a bird?", "yes"),
        (2, "0", "entity", "whole", "fish", "Is there a fish?", "no"),
        (3, "1, 2", "relation", "spatial", "bird, fish, side by side", "Are they side by side?", "yes"),
    ]),
    # Forward and self references, zero among others.
    "words_long_1": ("a sign that says \"closed\"", [
        (1, "2", "other", "text rendering", "sign, closed", "Does the sign say closed?", "yes"),
        (2, "3", "entity", "whole", "sign", "Is there a sign?", "yes"),
        (3, "0", "entity", "whole", "street", "Is there a street?", "no"),
        (4, "0,4", "global", "-", "night", "Is it night?", "yes"),
        (5, "1,5", "attribute", "type", "sign, neon", "Is it a neon sign?", "yes"),
    ]),
    # A circle.
    "words_long_2": ("a dog chases its tail", [
        (1, "0", "entity", "whole", "dog", "Is there a dog?", "yes"),
        (2, "1,3", "entity", "part", "dog's tail", "Is there a tail?", "yes"),
        (3, "2", "relation", "action", "dog, tail, chase", "Does the dog chase its tail?", "no"),
    ]),
    # Begins at 2, and nothing was answered.
    "count_2": ("three green balls", [
        (2, "1", "other", "count", "balls, ==3", "Are there three balls?", None),
        (3, "1", "attribute", "color", "balls, green", "Are the balls green?", None),
    ]),
    # All well, but for one blank.
    "count_3": ("a photo of one star", [
        (1, "0", "global", "-", "photo", "Is this a photo?", "yes"),
        (2, "0", "entity", "whole", "star", "Is there a star?", "yes"),
        (3, "2", "other", "count", "star, ==1", "Is there one star?", ""),
    ]),
}


def official_dependencies(rows):
    try:
        return {row[0]: [int(part.strip()) for part in row[1].split(",")] for row in rows}
    except ValueError:
        return {}


def official_item(rows):
    """calc_vqa_score after load_vqa_output: the scores of the questions, or None for an item without answers."""
    answers = {row[0]: row[6] for row in rows if row[6] is not None}
    if not answers:
        return None
    raw = {id: float(answer == "yes") for id, answer in answers.items()}
    scores = dict(raw)
    for id, parents in official_dependencies(rows).items():
        if any(parent != 0 and raw[parent] == 0 for parent in parents):
            scores[id] = 0.0
    return scores


def selma_item(rows):
    answers = {str(row[0]): row[6] for row in rows}
    if all(answer is None for answer in answers.values()):
        return None
    scores = {id: float(answer == "yes") for id, answer in answers.items()}
    for row in rows:
        for parent in row[1].split(","):
            if parent != "0" and parent in scores and scores[parent] == 0:
                scores[str(row[0])] = 0.0
                break
    return {int(id): score for id, score in scores.items()}


def mean(values):
    return sum(values) / len(values)


def summarise(score, macro, missing):
    items = {}
    for item, (_, rows) in ITEMS.items():
        scores = score(rows)
        if scores is None:
            if missing == "skip":
                continue
            scores = {row[0]: 0.0 for row in rows}
        items[item] = scores
    categories = {}
    for item, scores in items.items():
        for row in ITEMS[item][1]:
            categories.setdefault(row[3], {}).setdefault(item, []).append(scores[row[0]])

    def aggregate(lists):
        return mean([mean(values) for values in lists]) if macro else mean([value for values in lists for value in values])

    return {
        "missing_items": missing,
        "overall": aggregate([list(scores.values()) for scores in items.values()]),
        "by_detailed": {name: aggregate(list(lists.values())) for name, lists in sorted(categories.items())},
        "items": {item: list(scores.values()) for item, scores in items.items()},
    }


def main():
    OUT.mkdir(parents=True, exist_ok=True)
    with open(OUT / "questions.csv", "w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(COLUMNS)
        for item, (text, rows) in ITEMS.items():
            for id, cell, broad, detailed, keywords, question, _ in rows:
                shown = "" if detailed == "-" else f" - {detailed}"
                writer.writerow([item, text, keywords, id, cell, broad, detailed, f"{broad}{shown} ({keywords})", question])
    with open(OUT / "answers.csv", "w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["dsg_prompt_split", "qg_model", "t2i_model", "item_id", "question", "question_id",
                         "dependency_id", "answer"])
        for model in ["another", "painter"]:
            for item, (_, rows) in ITEMS.items():
                for id, cell, _, _, _, question, answer in rows:
                    if answer is not None:
                        answer = answer if model == "painter" else "yes"
                        writer.writerow([item.rsplit("_", 1)[0], "dsg", model, item, question, id, cell, answer])
    expected = []
    for name, score, macro in [("official", official_item, True), ("selma", selma_item, False)]:
        for missing in ["zero", "skip"]:
            expected.append({"aggregation": name, "quirks": name} | summarise(score, macro, missing))
    (OUT / "expected.json").write_text(json.dumps(expected, indent=2) + "\n")


if __name__ == "__main__":
    main()

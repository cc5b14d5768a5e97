"""Predictions, and the figures that the official scorers give for them.

`conlleval` is the Python version of the CoNLL-2000 script, `squad` the official evaluation of SQuAD
v2.0 with the no-answer probabilities below. The texts are made up.
"""

# (gold tags, predicted tags) of each text: IOB1, IOB2 and IOBES, well-formed and not.
TAGS = [
    ("B-PER I-PER O O B-LOC", "B-PER I-PER O O B-LOC"),
    ("B-PER I-PER O B-ORG I-ORG", "I-PER I-PER O I-ORG I-ORG"),
    ("O B-LOC I-LOC O", "O I-LOC B-LOC O"),
    ("B-LOC B-LOC I-LOC", "B-LOC I-LOC I-LOC"),
    ("B-ORG I-ORG I-ORG O", "B-ORG I-PER I-ORG O"),
    ("I-PER I-PER B-PER I-LOC", "I-PER I-PER I-PER I-LOC"),
    ("O O O", "O I-ORG O"),
    ("B-PER I-ORG", "B-PER I-ORG"),
    ("I-LOC O B-LOC", "B-LOC O I-LOC"),
    ("B-MISC O O B-PER I-PER", "O O B-MISC B-PER O"),
    ("O B-WORK-OF-ART I-WORK-OF-ART", "O B-WORK-OF-ART I-WORK-OF-ART"),
    ("O B-WORK-OF-ART", "O B-WORK"),
    ("B-LOC", "O"),
]
IOBES = [
    ("B-PER E-PER O S-LOC", "B-PER E-PER O S-LOC"),
    ("S-LOC S-LOC O B-ORG I-ORG E-ORG", "S-LOC B-LOC O B-ORG I-ORG I-ORG"),
    ("B-PER I-PER E-PER O", "I-PER I-PER E-PER O"),
    ("B-PER E-PER S-PER O", "B-PER E-PER I-PER O"),
    ("S-ORG O B-LOC E-LOC", "E-ORG O E-LOC E-LOC"),
    ("O S-MISC B-MISC E-MISC", "O S-MISC E-MISC S-MISC"),
]

# (gold answers, answer, probability of no answer) of each question.
ANSWERS = [
    (["Bern", "in Bern"], "in Bern.", 0.02),
    (["the city of Bern"], "City of  Bern", 0.05),
    (["the city of Bern", "Bern"], "Bern city", 0.11),
    (["a an the"], "the", 0.31),
    (["a an the"], "an answer", 0.64),
    (["Denver Broncos"], "The Broncos of Denver", 0.17),
    (["$1,500"], "1500", 0.08),
    (["Saint-Denis"], "Saint Denis", 0.22),
    (["naïve café"], "Naïve Café!", 0.03),
    (["42", "forty-two"], "forty two", 0.45),
    (["so so so what"], "so so", 0.28),
    ([], "", 0.93),
    ([], "Bern", 0.88),
    ([], "in Bern", 0.41),
    ([], "the", 0.72),
    (["Bern"], "", 0.81),
    (["Bern"], "Lima", 0.57),
    (["Lima"], "Lima", 0.52),
    ([], "Oslo", 0.35),
]

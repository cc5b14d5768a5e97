"""Arguments of `analyze` that nobody understands, for a model and for its clients."""

from trunkline import Document, Question

_BARE = Document("Ada")

# What is analysed, the other arguments, and how the message begins.
UNFIT: tuple[tuple[object, dict[str, object], str], ...] = (
    (None, {}, "text: is of type NoneType; give a text, a Document, or a list of them"),
    (3, {}, "text: is of type int; give a text"),
    (b"Ada", {}, "text: is of type bytes; give a text"),
    ({"text": "Ada"}, {}, "text: is of type dict; give a text"),
    ({"Ada"}, {}, "text: is of type set; give a text"),
    (Question("Who?"), {}, "text: is of type Question; give a text"),
    (["ok", None], {}, "documents[1].text: is of type NoneType; give a string"),
    ([{"text": "Ada"}], {}, "documents[0].text: is of type dict; give a string"),
    (["Ada", ["Bern"]], {}, "documents[1].text: is of type list; give a string"),
    (Document(3), {}, "documents[0].text: is of type int"),  # type: ignore[arg-type]
    (
        Document("Ada", ("Who?",)),  # type: ignore[arg-type]
        {},
        "documents[0].questions[0]: is of type str; give a Question",
    ),
    (
        Document("Ada", Question("Who?")),  # type: ignore[arg-type]
        {},
        "documents[0].questions: is of type Question; give a tuple",
    ),
    (
        Document("Ada", (Question(None),)),  # type: ignore[arg-type]
        {},
        "documents[0].questions[0].text: is of type NoneType",
    ),
    (
        Document("Ada", (Question("Who?", 3),)),  # type: ignore[arg-type]
        {},
        "documents[0].questions[0].task: is of type int",
    ),
    (Document("Ada", tasks="ner"), {}, "documents[0].tasks: is of type str"),  # type: ignore[arg-type]
    (Document("Ada", tasks=()), {}, "documents[0].tasks: is empty; name the tasks"),
    (Document("Ada", text_pair=3), {}, "documents[0].text_pair: is of type int"),  # type: ignore[arg-type]
    ("Ada", {"questions": "Who?"}, "questions: is of type str; give a list"),
    ("Ada", {"questions": {"q": "Who?"}}, "questions: is of type dict; give a list"),
    ("Ada", {"questions": 3}, "questions: is of type int; give a list"),
    ("Ada", {"questions": [Question("Who?")]}, "questions[0]: is of type Question; give a string"),
    ("Ada", {"tasks": "ner"}, "tasks: is of type str; give a list"),
    ("Ada", {"tasks": {"ner": True}}, "tasks: is of type dict; give a list"),
    ("Ada", {"tasks": ["ner", None]}, "tasks[1]: is of type NoneType; give a string"),
    ("Ada", {"tasks": []}, "tasks: is empty; name the tasks, or give None for all"),
    ("Ada", {"text_pair": 3}, "text_pair: is of type int; give a text, or a list"),
    (["Ada", "Bern"], {"text_pair": ["x", None]}, "text_pair[1]: is of type NoneType"),
    (["Ada", "Bern"], {"text_pair": ["x"]}, "text_pair: holds 1; give one, or one per text"),
    (_BARE, {"questions": ["Who?"]}, "questions: would not reach documents[0]; put it into"),
    (_BARE, {"tasks": ["ner"]}, "tasks: would not reach documents[0]"),
    (_BARE, {"text_pair": ""}, "text_pair: would not reach documents[0]"),
    (["Ada", _BARE], {"tasks": ["ner"]}, "tasks: would not reach documents[1]"),
)

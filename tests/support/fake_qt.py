"""Qt's and CTK's widgets as the module's panel uses them: properties, and signals that a test sends."""

from __future__ import annotations

from types import SimpleNamespace


class Widget:
    """Properties are attributes, as PythonQt has them; `send` does what a user's touch does."""

    text, enabled, value, wordWrap, currentPath, collapsed = "", True, 0, False, "", False

    def __init__(self, *words):
        self.work = {}
        if words and isinstance(words[0], str):
            self.text = words[0]

    def connect(self, signal, work):
        self.work[signal] = work

    def send(self, *values):
        (work,) = self.work.values()
        assert self.enabled, f"{self.text} cannot be touched"
        return work(*values)

    def setRange(self, low, high):
        self.range = (low, high)

    def setInterval(self, milliseconds):
        self.interval = milliseconds

    def addWidget(self, widget):
        pass

    addRow = addStretch = setMRMLScene = setTextInteractionFlags = lambda self, *_: None  # noqa: E731


class Timer(Widget):
    running = False

    def start(self):
        self.running = True

    def stop(self):
        self.running = False


class Choice(Widget):
    def __init__(self):
        super().__init__()
        self.items, self.currentIndex = [], 0

    def addItem(self, title, data):
        self.items.append((title, data))

    @property
    def currentData(self):
        return self.items[self.currentIndex][1]

    def choose(self, data):
        self.currentIndex = [d for _, d in self.items].index(data)
        if self.work:
            self.send(self.currentIndex)


class Path(Widget):
    Files, Dirs, Executable = 1, 2, 4


class Nodes(Widget):
    node = None

    def currentNode(self):
        return self.node


def modules(kept):
    """(qt, ctk); what is kept between sessions goes into the dictionary `kept`."""

    class Settings:
        def value(self, name, default):
            return kept.get(name, default)

        def setValue(self, name, value):
            kept[name] = value

    names = ("QLabel", "QPushButton", "QSpinBox", "QSlider", "QProgressBar", "QFormLayout", "QHBoxLayout")
    qt = SimpleNamespace(
        **dict.fromkeys(names, Widget), QTimer=Timer, QComboBox=Choice, QSettings=Settings,
        Qt=SimpleNamespace(Horizontal=1, TextSelectableByMouse=1),
    )  # fmt: skip
    return qt, SimpleNamespace(ctkCollapsibleButton=Widget, ctkPathLineEdit=Path)

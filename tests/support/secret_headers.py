"""DICOM headers that are full of secrets: every attribute of pydicom's dictionary, and what no dictionary has."""

from functools import cache

from pydicom import Dataset
from pydicom.datadict import DicomDictionary, RepeatersDictionary, dictionary_VR
from pydicom.tag import Tag

NAME, DAY, TIME, AGE, ROOT_UID, NUMBER = "HIDDEN", "19231107", "052233.654321", "071Y", "1.2.840.77.", 47114
BINARY = ("OB", "OW", "OD", "OF", "OL", "OV", "UN")
WRITTEN = ("LO", "SH", "ST", "LT", "UT", "UC", "UR", "AE", "CS")
NOT_IN_A_FILE = (0x0000, 0x0002)
"""Groups of the network's messages, and of a file's beginning."""


def secret(tag, vr):
    """A value of this type that stands for something that tells the patient; text names its attribute."""
    values = {"PN": f"{NAME}^{tag:08X}", "DA": DAY, "DT": f"{DAY}{TIME}", "TM": TIME, "AS": AGE, "AT": 0x00100010,
              "UI": f"{ROOT_UID}{int(tag)}", "DS": str(NUMBER), "IS": str(NUMBER)}  # fmt: skip
    if vr in BINARY:
        return b"SECRET%08X" % tag + b"\0\0"  # 16 bytes: whole numbers of any size
    if vr in WRITTEN:
        return f"SECRET{tag:08X}"
    return values.get(vr, NUMBER if vr != "SS" else NUMBER // 10)


def nested(tag, depth=3):
    """An item of a sequence with secrets, and with another such item inside."""
    item = Dataset()
    for keyword in ("PatientName", "PatientID", "StudyDate", "StudyTime", "CodeMeaning", "SOPInstanceUID"):
        inner = Tag(keyword)
        item.add_new(inner, dictionary_VR(inner), secret(inner, dictionary_VR(inner)))
    item.add_new(0x00180081, "DS", str(NUMBER))
    item.private_block(0x0033, "SECRET MAKER", create=True).add_new(1, "LO", f"SECRET{tag:08X}")
    if depth > 1:
        item.add_new("ContentSequence", "SQ", [nested(tag, depth - 1)])
    return item


def all_tags():
    """Every tag of the dictionary that a data set can hold, and of curves and overlays the first of each."""
    repeated = (int(mask.replace("x", "0"), 16) for mask in RepeatersDictionary)
    return [
        Tag(t) for t in (*DicomDictionary, *repeated) if t >> 16 not in NOT_IN_A_FILE and dictionary_VR(t) != "NONE"
    ]


@cache
def full_header():
    """A header with a secret in every attribute, known, unknown and private."""
    header = Dataset()
    for tag in all_tags():
        vr = dictionary_VR(tag).split(" or ")[0]
        header.add_new(tag, vr, [nested(tag)] if vr == "SQ" else secret(tag, vr))
    header.add_new(0x0018FFF1, "LO", "SECRET0018FFF1")  # of no dictionary
    header.add_new(0x0020FFF0, "UN", b"SECRET0020FFF0")
    block = header.private_block(0x0011, "SECRET MAKER", create=True)
    block.add_new(1, "PN", f"{NAME}^Private")
    block.add_new(2, "SQ", [nested(Tag(0x00111002))])
    return header


def write_secrets(path, header, besides=()):
    """Save a header with a secret in each attribute that it lacks, but for those `besides`, and all around them."""
    for element in full_header():
        if element.tag not in header and element.keyword not in besides:
            header[element.tag] = element
    header.preamble = b"SECRET PREAMBLE".ljust(128, b"\0")
    header.file_meta.SourceApplicationEntityTitle = header.file_meta.SendingApplicationEntityTitle = "SECRETAE"
    header.file_meta.PrivateInformationCreatorUID = f"{ROOT_UID}1"
    header.file_meta.PrivateInformation = b"SECRET INFORMATION"
    header.save_as(path, enforce_file_format=True)
    with path.open("ab") as file:
        file.write(b"SECRET END")

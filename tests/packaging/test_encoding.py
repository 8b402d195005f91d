"""The library reads and writes UTF-8, whatever the locale of the machine is."""

import ast

READS = ("open", "read_text", "write_text", "fdopen", "NamedTemporaryFile", "TemporaryFile")
RUNS = ("run", "Popen", "check_output", "check_call", "call")


def named(node: ast.Call) -> tuple[str, str]:
    """What is called, and of which thing."""
    if isinstance(node.func, ast.Attribute):
        return ast.unparse(node.func.value), node.func.attr
    return "", node.func.id if isinstance(node.func, ast.Name) else ""


def silent(source: str) -> list[str]:
    """Calls that read or write text without saying in which encoding."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.Call):
            continue
        owner, name = named(node)
        keywords = {one.arg for one in node.keywords}
        given = [one.value for one in node.args if isinstance(one, ast.Constant)]
        binary = any(isinstance(one, str) and "b" in one and len(one) < 4 for one in given)
        text = name in READS and not binary and owner not in ("os", "Image")
        text |= owner == "subprocess" and name in RUNS and "text" in keywords
        if text and "encoding" not in keywords:
            found.append(f"line {node.lineno}: {ast.unparse(node)}")
    return found


def test_every_file_of_text_is_read_and_written_as_utf_8(root):
    files = sorted((root / "src" / "smallnets").rglob("*.py"))
    assert len(files) > 100
    assert {str(file): lines for file in files if (lines := silent(file.read_text("utf-8")))} == {}


def test_calls_without_an_encoding_are_found():
    wrong = (
        "open(name)", "path.open('w')", "path.read_text()", "path.write_text(text)",
        "open(name, mode='w')", "subprocess.run(command, text=True)",
    )  # fmt: skip
    right = (
        "open(name, 'rb')", "path.open('rb')", "path.read_text(encoding='utf-8')",
        "os.open(name, flags)", "Image.open(stream)", "subprocess.run(command)",
        "subprocess.run(command, encoding='utf-8')", "path.read_bytes()",
    )  # fmt: skip
    assert [code for code in wrong if silent(code)] == list(wrong)
    assert [code for code in right if silent(code)] == []

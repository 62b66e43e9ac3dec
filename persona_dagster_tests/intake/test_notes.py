from collections import Counter
from datetime import UTC, datetime
from pathlib import Path

import orjson
import pytest

from persona_dagster.digest import sha256
from persona_dagster.intake.capybara import PACKAGED, read_dialogues
from persona_dagster.intake.notes import parse_note, plain_heading, read_notes
from persona_dagster.intake.open_and_decode import IntakeError
from persona_dagster.records import Capture, Outcome
from persona_dagster.sample.content_loader import NOTES
from persona_dagster.sites.parser_results import Parsed

LONG = "這一段有足夠多的字，所以它是一段真正的內容，不只是連結而已。"


def parse(text: str | bytes, key: str = "note.md") -> Parsed:
    body = text.encode() if isinstance(text, str) else text
    capture = Capture(
        "notes", "note", "note", key, "", datetime.now(UTC), 200, Outcome.OK, {}, body, sha256(body)
    )  # fmt: skip
    return parse_note(capture, str)


def sections(text: str) -> list[tuple[str | None, str]]:
    parsed = parse(text)
    assert parsed.complete, parsed.why
    return [(post.title, post.text_raw) for post in parsed.posts]


def test_a_heading_asks_and_its_section_answers() -> None:
    assert sections(f"# 總題\n\n{LONG}\n\n## 什麼是 BERT？ ##\n{LONG}二\n### 小節\n{LONG}三\n") == [
        ("總題", LONG),
        ("總題 › 什麼是 BERT？", LONG + "二"),
        ("總題 › 什麼是 BERT？ › 小節", LONG + "三"),
    ]


def test_a_heading_ends_those_of_its_level_and_below() -> None:
    headings = ["## 甲", "#### 甲一", "### 甲二", "## 乙", "# 書", "## 丙"]
    found = sections("---\ntitle: 書\n---\n" + "".join(f"{heading}\n{LONG}\n" for heading in headings))
    paths = [(title or "").split(" › ") for title, _ in found]
    assert paths == [["書", "甲"], ["書", "甲", "甲一"], ["書", "甲", "甲二"], ["書", "乙"], ["書"], ["書", "丙"]]


def test_a_question_and_its_answer_are_a_section_of_their_own() -> None:
    text = (
        f"## 複習\n{LONG}\n\n**Q:**  什麼是池化？\n\n**A:**  {LONG}\n* 一\n\n**Q2:** 為什麼\n要正規化？\nA: {LONG}\n"
        f"問：沒有人回答\n{LONG}\n## 下一節\nA: 不是回答\n{LONG}"
    )
    assert sections(text) == [
        ("複習", LONG),
        ("複習 › 什麼是池化？", f"{LONG}\n* 一"),
        ("複習 › 為什麼 要正規化？", LONG),
        ("下一節", f"A: 不是回答\n{LONG}"),
    ]


def test_a_hash_in_code_is_no_heading_and_code_stays_as_it_is() -> None:
    code = "```python\n# 註解不是標題\nx = 1  # <Tip>\n\n\n\n## 也不是\n```"
    text = f"## 真標題\n{LONG}\n{code}\n~~~~\n```\n# 不是\n~~~~\n## 下一題\n{LONG}"
    found = sections(text)
    assert [title for title, _ in found] == ["真標題", "下一題"]
    assert code in found[0][1] and "# 不是" in found[0][1]


def test_an_open_fence_holds_to_the_end_and_a_short_mark_does_not_close_it() -> None:
    assert [title for title, _ in sections(f"## 甲\n{LONG}\n````\n```\n## 乙\n{LONG}")] == ["甲"]


def test_front_matter_components_comments_and_anchors_are_not_seen() -> None:
    text = (
        "---\ntitle: 介紹\nurl: https://example.org/n\n---\n"
        f'{LONG}\n\n<CourseFloatingBanner chapter={{6}}\n  notebooks={{[\n    {{a: "x"}}]}} />\n'
        "import X from '../x'\n"
        f"<!--\n## 藏起來的標題\n-->\n## 標題[[anchor]]\n<Tip>\n\n{LONG}\n\n</Tip>\n## 另一個 {{#id}}\n{LONG}"
    )
    parsed = parse(text)
    assert [post.title for post in parsed.posts] == ["介紹", "介紹 › 標題", "介紹 › 另一個"]
    assert all(post.text_raw == LONG for post in parsed.posts)
    assert {post.url for post in parsed.posts} == {"https://example.org/n"}


def test_inline_elements_go_and_words_in_angle_brackets_stay() -> None:
    text = (
        f"## 題\n<b>{LONG}</b><br>第二行 <a href='x'>連結</a>，特殊符號 <cls> 與 `<b>` 不動\n<p align='center'>尾</p>"
    )
    assert sections(text) == [("題", f"{LONG}\n第二行 連結，特殊符號 <cls> 與 `<b>` 不動\n尾")]


def test_sections_of_links_and_pictures_are_left_out() -> None:
    text = f"## 連結\n[去這裡](https://example.org/a/b/c) ![圖](x.png)\n## 空\n\n## 內容\n{LONG}"
    assert [title for title, _ in sections(text)] == ["內容"]


def test_an_underlined_title_and_windows_line_ends() -> None:
    assert sections(f"主標題\r\n=====\r\n{LONG}\r\n") == [("主標題", LONG)]


@pytest.mark.parametrize(
    ("text", "plain"),
    [("[連結](http://x) **粗** `code`", "連結 粗 code"), ("標題 {#a-b}", "標題"), ("<a id='x'></a>標題", "標題")],
)
def test_headings_are_plain_words(text: str, plain: str) -> None:
    assert plain_heading(text) == plain


def test_an_edited_section_keeps_its_name_and_a_second_heading_gets_its_own() -> None:
    def names(text: str) -> list[str]:
        return [post.post_id for post in parse(text).posts]

    first = names(f"## 甲\n{LONG}\n## 乙\n{LONG}\n## 甲\n{LONG}")
    assert len(set(first)) == 3
    assert names(f"## 甲\n{LONG}改\n## 新的\n{LONG}\n## 乙\n{LONG}\n## 甲\n{LONG}")[::3] == first[::2]


def test_questions_as_json_lines() -> None:
    rows = b"\n".join(orjson.dumps({"question": f"問 {n}", "answer": "答"}) for n in range(3))
    parsed = parse(rows + b"\n\n", "qa.jsonl")
    assert [(post.title, post.text_raw) for post in parsed.posts] == [(f"問 {n}", "答") for n in range(3)]
    broken = parse(rows + b'\n{"question": 1}', "qa.jsonl")
    assert broken.outcome == "parse_incomplete" and "qa.jsonl: line 4" in broken.why


@pytest.mark.parametrize("codec", ["big5", "gb18030", "utf-16", "utf-8-sig"])
def test_a_file_in_another_encoding_is_read(codec: str) -> None:
    parsed = parse(f"## 什麼是梯度下降？\n{LONG}".encode(codec))
    assert [(post.title, post.text_raw) for post in parsed.posts] == [("什麼是梯度下降？", LONG)]


def test_boards_are_files_and_names_that_repeat_carry_their_folders(tmp_path: Path) -> None:
    for name in ("a.md", "one/5.mdx", "two/5.mdx", "qa.jsonl", "skip.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(f"## 題\n{LONG}", encoding="utf-8")
    found = {capture.key: capture.board for capture in read_notes(tmp_path)}
    assert found == {"a.md": "a", "one/5.mdx": "one-5", "two/5.mdx": "two-5", "qa.jsonl": "qa", "skip.txt": "skip"}


def test_the_packaged_primer() -> None:
    posts = [post for capture in read_notes(NOTES) for post in parse_note(capture, str).posts]
    assert len(posts) >= 120 and len({post.title for post in posts}) == len(posts)


def test_real_notes(shared_data: Path) -> None:
    captures = list(read_notes(shared_data / "notes_zhtw"))
    assert len({(capture.board, capture.key) for capture in captures}) == len(captures) > 140
    results = [parse_note(capture, str) for capture in captures]
    assert Counter(result.outcome.value for result in results) == {"ok": len(captures)}
    posts = [post for result in results for post in result.posts]
    assert len(posts) > 900 and len({post.post_id for post in posts}) == len(posts)
    markup = [post for post in posts if "CourseFloatingBanner" in post.text_raw or "<!--" in post.text_raw]
    assert not markup


def chat(*roles: str, **more: object) -> dict[str, object]:
    return {
        "source": "s",
        "messages": [{"role": role, "content": f"{role} {n}"} for n, role in enumerate(roles)],
    } | more


def test_dialogues_keep_their_split_apart(tmp_path: Path) -> None:
    path = tmp_path / "c.jsonl"
    rows = [chat("user", "assistant"), chat("user", "assistant", "user", "assistant", split="test")]
    path.write_bytes(b"\n".join(map(orjson.dumps, rows)))
    captures = list(read_dialogues(path))
    assert [capture.board for capture in captures] == ["train", "test"]
    assert [orjson.loads(capture.body)["num_turns"] for capture in captures] == [2, 4]
    assert len({capture.key for capture in captures}) == 2
    assert [c.key for c in read_dialogues(path)] == [c.key for c in captures], "named by content"


def test_the_original_datasets_columns_are_understood(tmp_path: Path) -> None:
    path = tmp_path / "c.jsonl"
    path.write_bytes(orjson.dumps({"source": "s", "conversation": [{"input": "問", "output": "答"}]}))
    (capture,) = read_dialogues(path)
    assert [m["role"] for m in orjson.loads(capture.body)["messages"]] == ["user", "assistant"]


@pytest.mark.parametrize("line", [b"{", b"[]", b'{"messages": []}', b'{"messages": [{"role": "cat", "content": ""}]}'])
def test_a_bad_dialogue_is_named_by_line(tmp_path: Path, line: bytes) -> None:
    path = tmp_path / "c.jsonl"
    path.write_bytes(orjson.dumps(chat("user", "assistant")) + b"\n" + line)
    with pytest.raises(IntakeError, match=r"c\.jsonl, row 2: "):
        list(read_dialogues(path))


def test_packaged_and_missing_dialogues(tmp_path: Path) -> None:
    captures = list(read_dialogues())
    assert len(captures) >= 60 and {capture.board for capture in captures} == {"train", "test"}
    assert PACKAGED.is_file()
    with pytest.raises(IntakeError, match="no such file"):
        list(read_dialogues(tmp_path / "none.jsonl"))


def test_real_chats(shared_data: Path) -> None:
    assert len(list(read_dialogues(shared_data / "chat" / "capybara_shape.jsonl"))) == 1249

use super::*;

fn items(text: &str) -> Vec<String> {
    parse_numbered_list(text, 4).items
}

fn counts(text: &str) -> (usize, usize, usize, usize) {
    let list = parse_numbered_list(text, 4);
    (list.items.len(), list.skipped, list.misnumbered, list.empty)
}

#[test]
fn plain_list() {
    let text = "4. A dog runs.\n\n5. Two cats sleep.\n6. three red balls\n";
    assert_eq!(
        items(text),
        ["A dog runs.", "Two cats sleep.", "three red balls"]
    );
    assert_eq!(counts(text), (3, 0, 0, 0));
}

#[test]
fn every_dress_of_a_number() {
    for line in [
        "4. A dog",
        "4) A dog",
        "(4) A dog",
        "[4] A dog",
        "4: A dog",
        "4 - A dog",
        "4 – A dog",
        "4- A dog",
        "4.A dog",
        "04. A dog",
        "**4.** A dog",
        "**4**. A dog",
        "**4. A dog**",
        "**4) A dog**",
        "__4.__ A dog",
        "*4.* A dog",
        "### 4. A dog",
        "- 4. A dog",
        "* 4) A dog",
        "• 4. A dog",
        "   4.   A dog  ",
        "\t4.\tA dog",
        "4. \"A dog\"",
        "4. “A dog”",
        "4. 'A dog'",
        "4. `A dog`",
        "4. **A dog**",
        "4. *A dog*",
        "4. \"**A dog**\"",
        "4. \"A dog\",",
        "4.\nA dog",
        "**4.**\n\nA dog",
    ] {
        let list = parse_numbered_list(line, 4);
        assert_eq!(list.items, ["A dog"], "{line:?}");
        assert_eq!((list.skipped, list.misnumbered), (0, 0), "{line:?}");
    }
}

#[test]
fn numbers_that_begin_no_item() {
    for line in [
        "4 dogs run",
        "4-seat car",
        "3.5 apples on a table",
        "4:30 in the morning",
        "20240101. A date",
        "In 4. place",
        "4",
        "...",
        "-",
        "**",
    ] {
        assert_eq!(counts(line), (0, 1, 0, 0), "{line:?}");
    }
}

#[test]
fn numbers_inside_a_text_stay() {
    let text = "14. A train, 14. of May. 4. a\n15. ray tracing, 3 d. ue 16. hyper detailed\n";
    assert_eq!(
        items(text),
        [
            "A train, 14. of May. 4. a",
            "ray tracing, 3 d. ue 16. hyper detailed"
        ]
    );
}

#[test]
fn chatter_is_skipped_and_counted() {
    let text = "Sure! Here are 20 more:\n\n4. A dog.\n5. A cat.\nI hope these help!\n\n\
        Here is one more:\n6. A cow.\n\nlet me know if you need more";
    assert_eq!(items(text), ["A dog.", "A cat.", "A cow."]);
    assert_eq!(counts(text), (3, 4, 0, 0));
}

#[test]
fn wrapped_lines_are_joined() {
    let text = "4. A dog runs\nacross a green\n   field.\n5. A portrait,\nOil on canvas\n\
        6. A cat\n  Sleeps on a mat.\n7. \"A cow\neats grass\"";
    assert_eq!(
        items(text),
        [
            "A dog runs across a green field.",
            "A portrait, Oil on canvas",
            "A cat Sleeps on a mat.",
            "A cow eats grass"
        ]
    );
    assert_eq!(counts(text).1, 0);
}

#[test]
fn an_indented_answer_has_no_wrapped_chatter() {
    let text = "    Here you are:\n    4. A dog.\n    Enjoy!\n";
    assert_eq!(items(text), ["A dog."]);
    assert_eq!(counts(text).1, 2);
}

#[test]
fn wrong_numbers_are_counted_and_kept() {
    assert_eq!(counts("1. a\n2. b\n3. c"), (3, 0, 1, 0));
    assert_eq!(counts("4. a\n4. b\n6. c\n7. d"), (4, 0, 2, 0));
    assert_eq!(counts("4. a\n6. b\n5. c"), (3, 0, 2, 0));
}

#[test]
fn numbers_without_text_are_counted() {
    assert_eq!(items("4.\n5. A cat.\n6. \"\"\n7."), ["A cat."]);
    assert_eq!(counts("4.\n5. A cat.\n6. \"\"\n7."), (1, 0, 0, 3));
}

#[test]
fn several_items_in_one_line() {
    let text = "4. A dog. 5. A cat! 6. \"A cow\" 7. A hen\n8. A pig.";
    assert_eq!(
        items(text),
        ["A dog.", "A cat!", "A cow", "A hen", "A pig."]
    );
    assert_eq!(counts(text), (5, 0, 0, 0));
}

#[test]
fn bullets_count_only_without_numbers() {
    let text = "Here:\n- A dog.\n* A cat.\n• 3 hens";
    assert_eq!(items(text), ["A dog.", "A cat.", "3 hens"]);
    assert_eq!(counts(text), (3, 1, 0, 0));
    assert_eq!(items("- note\n4. A dog."), ["A dog."]);
}

#[test]
fn quotes_inside_a_text_stay() {
    for text in [
        "\"Hello\" and \"Bye\"",
        "a sign that says \"STOP\"",
        "\"STOP\" on a sign",
        "“a” or “b”",
        "a dog's bone",
    ] {
        assert_eq!(items(&format!("4. {text}")), [text]);
    }
    assert_eq!(items("4. 'a dog's bone'"), ["a dog's bone"]);
}

#[test]
fn thoughts_and_fences_are_left_out() {
    let text = "<think>\n1. draft\n2. draft\n</think>\n```text\n4. A dog.\n```\n";
    assert_eq!(items(text), ["A dog."]);
    assert_eq!(counts(text), (1, 0, 0, 0));
}

#[test]
fn line_ends_marks_and_other_scripts() {
    assert_eq!(
        items("\u{feff}4. 一只狗。\r\n5. كلب\r\n"),
        ["一只狗。", "كلب"]
    );
    assert_eq!(items("4. 🐶🐱"), ["🐶🐱"]);
}

#[test]
fn nothing_gives_nothing() {
    for text in ["", "\n\n \n", "\"", "*", "I cannot help with that."] {
        assert!(items(text).is_empty(), "{text:?}");
    }
}

#[test]
fn a_million_characters_take_no_time() {
    let text = format!("4. {}\n5. {}", "a ".repeat(500_000), "5. ".repeat(300_000));
    assert_eq!(items(&text).len(), 2);
}

#[test]
fn any_text_gives_clean_items() {
    use rand_chacha::rand_core::{Rng as _, SeedableRng as _};

    const PIECES: [&str; 24] = [
        "4. ", "5) ", "**", "*", "\"", "“", "”", "'", "`", "- ", "• ", "\n", "\n\n", "\r\n", "  ",
        "dog", "Cat.", "狗", "🐶", "7", ",", "</think>", "```", "_",
    ];
    let mut rng = rand_chacha::ChaCha8Rng::seed_from_u64(1);
    for _ in 0..20_000 {
        let len = rng.next_u32() % 14;
        let text: String = (0..len)
            .map(|_| PIECES[rng.next_u32() as usize % PIECES.len()])
            .collect();
        let list = parse_numbered_list(&text, 4);
        for item in &list.items {
            assert!(
                !item.is_empty() && item.trim() == item,
                "{text:?}: {item:?}"
            );
            assert!(!item.contains(['\n', '\r']), "{text:?}: {item:?}");
        }
    }
}

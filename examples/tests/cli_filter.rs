//! `selma filter`.

mod common;

use common::Selma;

const PROMPTS: &str = "a red cat sits on a mat\n\
    two dogs run in the park\n\
    a red cat sits on the mat\n\
    the sea at night, with a small boat\n\
    two dogs run in a park\n";

#[test]
fn lines_are_passed_on_as_they_are_and_in_order() {
    let selma = Selma::new();
    selma.write("in.txt", PROMPTS);
    let ended = selma
        .run("filter --input in.txt --kept kept.txt --rejected rejected.txt")
        .ok();
    assert_eq!(
        selma.read("kept.txt"),
        b"a red cat sits on a mat\ntwo dogs run in the park\nthe sea at night, with a small boat\n"
    );
    assert_eq!(
        selma.read("rejected.txt"),
        b"a red cat sits on the mat\ntwo dogs run in a park\n"
    );
    assert!(
        ended.stderr.contains("3 kept, 2 rejected") && ended.stderr.contains("/s"),
        "{}",
        ended.stderr
    );
    assert!(ended.stdout.is_empty());
    assert_eq!(selma.names(), ["in.txt", "kept.txt", "rejected.txt"]);
}

#[test]
fn line_ends_blank_lines_and_a_missing_last_line_end_are_no_trouble() {
    let selma = Selma::new();
    selma.write(
        "in.txt",
        "\u{feff}one red cat here\r\n\r\n  \none red cat here\r\nanother thing at all",
    );
    let ended = selma.run("filter --input in.txt --kept kept.txt").ok();
    assert_eq!(
        selma.read("kept.txt"),
        "\u{feff}one red cat here\r\nanother thing at all".as_bytes()
    );
    assert!(
        ended.stderr.contains("2 kept, 1 rejected, 2 blank"),
        "{}",
        ended.stderr
    );
    selma.write("empty.txt", "");
    selma.run("filter --input empty.txt --kept none.txt").ok();
    assert_eq!(selma.read("none.txt"), b"");
}

#[test]
fn huge_lines_are_prompts_like_others() {
    let selma = Selma::new();
    let huge: Vec<String> = (0..150_000).map(|word| format!("w{word}")).collect();
    let huge = huge.join(" ");
    assert!(huge.len() > 1_000_000);
    let one_word = "x".repeat(1_000_000);
    let lines = format!("{huge}\na small one\n{huge} and more\n{one_word}\n{one_word}");
    selma.write("in.txt", &lines);
    let ended = selma
        .run("filter --input in.txt --kept kept.txt --rejected rejected.jsonl --state seen")
        .ok();
    let kept = format!("{huge}\na small one\n{one_word}\n");
    assert!(selma.read("kept.txt") == kept.as_bytes());
    assert!(
        ended.stderr.contains("3 kept, 2 rejected"),
        "{}",
        ended.stderr
    );
    let rejected = String::from_utf8(selma.read("rejected.jsonl")).unwrap();
    assert_eq!(rejected.lines().count(), 2);
    selma
        .run("filter --input in.txt --kept none.txt --state seen")
        .ok();
    assert!(selma.read("none.txt").is_empty());
}

#[test]
fn rows_keep_their_other_fields_and_their_spelling() {
    let selma = Selma::new();
    let rows = "{\"id\": 1.50, \"text\": \"a red cat sits on a mat\"}\n\
        {\"text\":\"caf\\u00e9 by the sea\",\"x\":[1,  2]}\n\
        {\"text\": \"a red cat sits on the mat\"}\n";
    for name in ["in.jsonl", "in.txt"] {
        selma.write(name, rows);
        selma
            .run(&format!(
                "filter --input {name} --kept kept --rejected rejected"
            ))
            .ok();
        let lines: Vec<&str> = rows.split_inclusive('\n').collect();
        assert_eq!(selma.read("kept"), lines[..2].concat().as_bytes());
        assert_eq!(selma.read("rejected"), lines[2].as_bytes());
    }
}

#[test]
fn a_brace_alone_does_not_make_json() {
    let selma = Selma::new();
    selma.write("in.txt", "{red|blue} cats in a garden\n");
    selma.run("filter --input in.txt --kept kept.txt").ok();
    assert_eq!(selma.read("kept.txt"), b"{red|blue} cats in a garden\n");
}

#[test]
fn standard_input_and_output_are_files_too() {
    let selma = Selma::new();
    let ended = selma
        .run_on(
            "filter --input - --kept - --rejected no.txt",
            PROMPTS.as_bytes(),
        )
        .ok();
    assert_eq!(ended.text().lines().count(), 3);
    assert_eq!(selma.read("no.txt").split(|byte| *byte == b'\n').count(), 3);
}

#[test]
fn the_tokenizer_and_the_threshold_count() {
    let selma = Selma::new();
    selma.write("in.txt", "красный кот сидит дома\nкрасный кот сидит дома\n");
    selma.run("filter --input in.txt --kept rouge.txt").ok();
    selma
        .run("filter --input in.txt --kept unicode.txt --tokenizer unicode")
        .ok();
    assert_eq!(selma.read("rouge.txt"), selma.read("in.txt"));
    assert_eq!(
        selma.read("unicode.txt").len() * 2,
        selma.read("in.txt").len()
    );
    selma.write("in.txt", "a b c d\na b c e\n");
    selma
        .run("filter --input in.txt --kept kept.txt --threshold 0.75")
        .ok();
    assert_eq!(selma.read("kept.txt"), selma.read("in.txt"));
    selma
        .run("filter --input in.txt --kept kept.txt --threshold 0.7")
        .ok();
    assert_eq!(selma.read("kept.txt"), b"a b c d\n");
}

#[test]
fn rejected_rows_say_what_they_are_close_to() {
    let selma = Selma::new();
    selma.write("in.txt", PROMPTS);
    selma
        .run("filter --input in.txt --kept kept.txt --rejected rejected.jsonl")
        .ok();
    assert_eq!(
        String::from_utf8(selma.read("rejected.jsonl")).unwrap(),
        "{\"text\":\"a red cat sits on the mat\",\"nearest\":\"a red cat sits on a mat\",\"score\":0.8571428571428571}\n\
         {\"text\":\"two dogs run in a park\",\"nearest\":\"two dogs run in the park\",\"score\":0.8333333333333334}\n"
    );
    // Rows of JSONL keep their fields.
    selma.write(
        "in.jsonl",
        "{\"text\": \"a b c d e\"}\n{\"id\": 7, \"text\": \"a b c d e\"}\n",
    );
    selma
        .run("filter --input in.jsonl --kept kept.jsonl --rejected rejected.jsonl")
        .ok();
    assert_eq!(
        selma.read("rejected.jsonl"),
        b"{\"id\":7,\"text\":\"a b c d e\",\"nearest\":\"a b c d e\",\"score\":1.0}\n"
    );
}

#[test]
fn a_state_carries_what_was_kept_to_the_next_run() {
    let selma = Selma::new();
    let lines: Vec<&str> = PROMPTS.split_inclusive('\n').collect();
    selma.write("all.txt", PROMPTS);
    selma.write("first.txt", lines[..2].concat());
    selma.write("second.txt", lines[2..].concat());
    selma.run("filter --input all.txt --kept all.kept").ok();
    for name in ["first", "second"] {
        selma
            .run(&format!(
                "filter --input {name}.txt --kept {name}.kept --state seen"
            ))
            .ok();
    }
    let both = [selma.read("first.kept"), selma.read("second.kept")].concat();
    assert_eq!(both, selma.read("all.kept"));
    // A run that fails leaves the state as it was.
    let state = selma.read("seen");
    selma.write("bad.txt", b"something else entirely\n\xff\n");
    let filter = "filter --kept kept --state seen --input";
    selma
        .run(&format!("{filter} bad.txt"))
        .failed(&["bad.txt, line 2"]);
    assert_eq!(selma.read("seen"), state);
    selma
        .run(&format!("{filter} all.txt --threshold 0.7"))
        .failed(&["seen was made with --threshold 0.8, not with 0.7"]);
    selma
        .run(&format!("{filter} all.txt --without-tokens distinct"))
        .failed(&["seen was made with --without-tokens \"keep\", not with \"distinct\""]);
    selma.write("seen", &state[..state.len() / 2]);
    selma.run(&format!("{filter} all.txt")).failed(&["seen"]);
    selma
        .run("filter --input all.txt --kept kept --state kept")
        .failed(&["two outputs"]);
}

#[test]
fn beta_and_the_rule_for_prompts_without_words_count() {
    let selma = Selma::new();
    // All words of the second prompt are in the first (precision 1), which has as many again.
    selma.write("in.txt", "a b c d e f\na b c\n");
    selma.run("filter --input in.txt --kept f1.txt").ok();
    selma
        .run("filter --input in.txt --kept precision.txt --beta 0")
        .ok();
    assert_eq!(selma.read("f1.txt"), selma.read("in.txt"));
    assert_eq!(selma.read("precision.txt"), b"a b c d e f\n");
    selma
        .run("filter --input in.txt --kept kept.txt --beta 1001")
        .failed(&["beta", "1001"]);
    selma.write("in.txt", "🐈\n🐈\n🐕\n");
    selma.run("filter --input in.txt --kept kept.txt").ok();
    assert_eq!(selma.read("kept.txt"), selma.read("in.txt"));
    selma
        .run("filter --input in.txt --kept kept.txt --without-tokens distinct")
        .ok();
    assert_eq!(selma.read("kept.txt"), "🐈\n🐕\n".as_bytes());
}

#[test]
fn batches_change_nothing() {
    let selma = Selma::new();
    let prompts: Vec<String> = (0..20_000)
        .map(|number| format!("number {} of {} things", number % 9_000, number / 3))
        .collect();
    selma.write("in.txt", prompts.join("\n"));
    let ended = selma
        .run("filter --input in.txt --kept kept.txt --threshold 0.75")
        .ok();
    let mut filter =
        selma_rouge::DiversityFilter::new(0.75, selma_rouge::Tokenizer::Rouge).unwrap();
    let kept = prompts
        .iter()
        .filter(|prompt| filter.offer(prompt).is_kept());
    assert!(
        selma
            .read("kept.txt")
            .split(|byte| *byte == b'\n')
            .filter(|line| !line.is_empty())
            .eq(kept.map(|prompt| prompt.as_bytes())),
        "{}",
        ended.stderr
    );
}

#[test]
fn a_bad_line_is_named_and_nothing_is_written() {
    let selma = Selma::new();
    let cases: [(&str, &[u8], &[&str]); 5] = [
        (
            "bytes.txt",
            b"good\nbad \xff\n",
            &["bytes.txt, line 2", "UTF-8"],
        ),
        (
            "torn.jsonl",
            b"{\"text\": \"a\"}\n{\"text\": \"b\n",
            &["torn.jsonl, line 2", "JSON"],
        ),
        ("first.jsonl", b"a prompt\n", &["first.jsonl, line 1"]),
        (
            "field.jsonl",
            b"{\"text\": \"a\"}\n\n{\"txt\": \"b\"}\n",
            &["field.jsonl, line 3", "`text`"],
        ),
        (
            "type.txt",
            b"{\"text\": 5}\n",
            &["type.txt, line 1", "string"],
        ),
    ];
    for (name, content, parts) in cases {
        selma.write(name, content);
        selma.write("kept", "old");
        let before = selma.names();
        selma
            .run(&format!(
                "filter --input {name} --kept kept --rejected rejected"
            ))
            .failed(parts);
        assert_eq!(selma.names(), before);
        assert_eq!(selma.read("kept"), b"old");
    }
}

#[test]
fn the_input_is_never_overwritten() {
    let selma = Selma::new();
    selma.write("in.txt", PROMPTS);
    for args in [
        "--kept in.txt",
        "--kept ./in.txt",
        "--kept kept.txt --rejected in.txt",
    ] {
        selma
            .run(&format!("filter --input in.txt {args}"))
            .failed(&["in.txt", "is an input"]);
    }
    selma
        .run("filter --input in.txt --kept a.txt --rejected ./a.txt")
        .failed(&["a.txt", "two outputs"]);
    assert_eq!(selma.names(), ["in.txt"]);
    assert_eq!(selma.read("in.txt"), PROMPTS.as_bytes());
}

#[test]
fn places_that_cannot_be_read_or_written_are_named() {
    let selma = Selma::new();
    selma.write("in.txt", PROMPTS);
    selma
        .run("filter --input no.txt --kept kept.txt")
        .failed(&["cannot read no.txt", "No such file"]);
    selma
        .run("filter --input . --kept kept.txt")
        .failed(&["cannot read .", "directory"]);
    selma
        .run("filter --input in.txt --kept no/kept.txt")
        .failed(&["cannot write no/kept.txt", "folder no"]);
    selma
        .run("filter --input in.txt --kept .")
        .failed(&["cannot write .", "folder"]);
    selma
        .run("filter --input in.txt --kept kept.txt --rejected no/r.txt")
        .failed(&["cannot write no/r.txt"]);
    #[cfg(target_os = "linux")]
    {
        selma
            .run("filter --input in.txt --kept /dev/full")
            .failed(&["cannot write /dev/full", "No space"]);
        selma
            .run("filter --input in.txt --kept kept.txt --rejected /dev/full")
            .failed(&["cannot write /dev/full", "No space"]);
    }
    assert_eq!(selma.names(), ["in.txt"]);
}

#[test]
fn wrong_flags_are_explained() {
    let selma = Selma::new();
    selma.write("in.txt", PROMPTS);
    selma.run("filter --input in.txt").misused(&["--kept"]);
    let filter = "filter --input in.txt --kept kept.txt";
    selma
        .run(&format!("{filter} --threshold 0"))
        .misused(&["--threshold", "greater than 0 and at most 1"]);
    selma
        .run(&format!("{filter} --threshold much"))
        .misused(&["--threshold", "number"]);
    selma
        .run(&format!("{filter} --tokenizer words"))
        .misused(&["--tokenizer", "rouge, rouge-stemmed, unicode"]);
    selma
        .run(&format!("{filter} --frobnicate"))
        .misused(&["--frobnicate"]);
    assert_eq!(selma.names(), ["in.txt"]);
}

/// The first Ctrl-C stops the work at its next line.
#[cfg(unix)]
#[test]
fn an_interrupted_filter_leaves_nothing() {
    use std::io::{BufRead, BufReader, Write};
    use std::process::{Command, Stdio};

    let selma = Selma::new();
    let mut child = selma
        .command("filter --input - --kept kept.txt")
        .stdin(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(b"a red cat sits on a mat\n").unwrap();
    // The temporary file shows that Ctrl-C has been taken over by now.
    while selma.names().is_empty() {
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    let interrupted = Command::new("kill")
        .args(["-INT", &child.id().to_string()])
        .status()
        .unwrap();
    assert!(interrupted.success());
    let mut stderr = BufReader::new(child.stderr.take().unwrap());
    let mut line = String::new();
    stderr.read_line(&mut line).unwrap();
    assert!(line.contains("Ctrl-C"), "{line}");
    stdin.write_all(b"two dogs run in the park\n").unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(130));
    line.clear();
    stderr.read_line(&mut line).unwrap();
    assert_eq!(line, "error: interrupted; nothing was written\n");
    assert!(selma.names().is_empty());
}

//! The short programs, each on the files of those before it.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test fails by a panic, in its helpers too"
)]

mod common;

use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

use common::{Ended, expert, tiny_sd};

fn run(program: &str, folder: &Path, args: &[&str]) -> Ended {
    Ended::of(
        Command::new(program)
            .args(args)
            .current_dir(folder)
            .output()
            .unwrap(),
    )
}

#[test]
fn the_filter_says_what_it_drops() {
    let mut child = Command::new(env!("CARGO_BIN_EXE_rouge_filter"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let prompts = b"a red cat on a mat\na red cat on the mat\ntwo dogs\n";
    child.stdin.take().unwrap().write_all(prompts).unwrap();
    let output = child.wait_with_output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(
        text.contains("drop  a red cat on the mat") && text.ends_with("2 kept\n"),
        "{text}"
    );
}

#[test]
fn a_work_goes_on_behind_its_last_line() {
    let folder = tempfile::tempdir().unwrap();
    let work = |count| {
        run(
            env!("CARGO_BIN_EXE_resume_work"),
            folder.path(),
            &["s.jsonl", count],
        )
        .ok()
    };
    assert_eq!(work("2").text(), "0 done before\n2 done\n");
    let path = folder.path().join("s.jsonl");
    let torn = std::fs::read_to_string(&path).unwrap() + "9";
    std::fs::write(&path, torn).unwrap();
    assert_eq!(work("4").text(), "2 done before\n4 done\n");
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "0\n1\n4\n9\n");
}

#[test]
fn a_kernel_gives_what_plain_operations_give() {
    let ended = run(env!("CARGO_BIN_EXE_fused_kernels"), Path::new("."), &[]).ok();
    let text = ended.text();
    let difference = text
        .rsplit(": ")
        .next()
        .unwrap()
        .trim()
        .parse::<f32>()
        .unwrap();
    assert!(difference < 1e-5, "{text}");
}

#[test]
fn prompts_are_written() {
    let folder = tempfile::tempdir().unwrap();
    let ended = run(
        env!("CARGO_BIN_EXE_write_prompts"),
        folder.path(),
        &["p.jsonl"],
    )
    .ok();
    assert!(ended.text().contains("20 prompts from"), "{}", ended.text());
    assert_eq!(
        selma_llm::read_prompts(&folder.path().join("p.jsonl"))
            .unwrap()
            .len(),
        20
    );
}

#[test]
fn an_expert_is_trained_on_a_dataset_and_draws() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let ended = run(env!("CARGO_BIN_EXE_make_dataset"), folder, &["data"]).ok();
    assert!(ended.text().contains("32 pictures"), "{}", ended.text());
    let model = tiny_sd();
    let ended = run(
        env!("CARGO_BIN_EXE_train_expert"),
        folder,
        &[&model, "data", "e.safetensors", "2"],
    )
    .ok();
    assert!(
        ended.text().contains("step 2 of 2: loss"),
        "{}",
        ended.text()
    );
    let draw = env!("CARGO_BIN_EXE_text_to_image");
    run(
        draw,
        folder,
        &[&model, "a red circle", "with.png", "e.safetensors"],
    )
    .ok();
    run(draw, folder, &[&model, "a red circle", "without.png"]).ok();
    assert!(folder.join("with.png").is_file() && folder.join("without.png").is_file());
}

#[test]
fn adapters_are_merged() {
    let folder = tempfile::tempdir().unwrap();
    let args = ["m.safetensors", &expert('a'), &expert('b')];
    let ended = run(env!("CARGO_BIN_EXE_merge_adapters"), folder.path(), &args).ok();
    assert!(
        ended.text().contains("modules, off from the formula by"),
        "{}",
        ended.text()
    );
    selma_lora::Adapter::load(folder.path().join("m.safetensors")).unwrap();
}

#[test]
fn workers_whose_factors_are_merged_learn_what_none_of_them_sees() {
    let ended = run(env!("CARGO_BIN_EXE_merge_in_trainer"), Path::new("."), &[]).ok();
    let losses: Vec<f32> = ended
        .text()
        .lines()
        .map(|line| line.split([' ', ',']).nth(3).unwrap().parse().unwrap())
        .collect();
    assert_eq!(losses.len(), 12);
    assert!(losses[11] < 0.01 * losses[0], "{}", ended.text());
}

#[test]
fn adapters_are_swapped_between_requests() {
    let folder = tempfile::tempdir().unwrap();
    let path = "unet.down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q";
    let mut module = selma_lora::init::gaussian(path, &[8, 8], 2, 2.0, 0).unwrap();
    module.b.fill(3.0);
    let adapter = selma_lora::Adapter::new([(path.to_owned(), module)]);
    let file = folder.path().join("bold.safetensors");
    adapter
        .save(&file, selma_lora::Format::Kohya, selma_lora::Dtype::F32)
        .unwrap();
    let mut child = Command::new(env!("CARGO_BIN_EXE_swap_adapters"))
        .args([&tiny_sd(), "out", "bold.safetensors"])
        .current_dir(folder.path())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let requests = b"base: a red star\nbold: a red star\nother: a star\nodd\nbase: a red star\n";
    child.stdin.take().unwrap().write_all(requests).unwrap();
    let ended = Ended::of(child.wait_with_output().unwrap()).ok();
    let text = ended.text();
    assert!(
        text.contains("2: out/2.png by bold") && text.contains("3: there is no adapter other"),
        "{text}"
    );
    let picture = |number: u8| std::fs::read(folder.path().join(format!("out/{number}.png")));
    assert_eq!(picture(1).unwrap(), picture(5).unwrap());
    assert_ne!(picture(1).unwrap(), picture(2).unwrap());
    assert!(picture(3).is_err() && picture(4).is_err());
}

#[test]
fn pictures_of_the_miniature_world_are_scored() {
    let folder = tempfile::tempdir().unwrap();
    let ended = run(env!("CARGO_BIN_EXE_mini_world"), folder.path(), &["world"]).ok();
    assert!(ended.text().contains("objects seen"), "{}", ended.text());
    let args = ["world", "world/questions.csv"];
    let ended = run(env!("CARGO_BIN_EXE_score_images"), folder.path(), &args).ok();
    assert!(
        ended.text().starts_with("all") && ended.text().contains("20 prompts"),
        "{}",
        ended.text()
    );
}

#[test]
fn without_arguments_they_say_how_they_are_used() {
    let folder = tempfile::tempdir().unwrap();
    for program in [
        env!("CARGO_BIN_EXE_write_prompts"),
        env!("CARGO_BIN_EXE_make_dataset"),
        env!("CARGO_BIN_EXE_merge_adapters"),
        env!("CARGO_BIN_EXE_swap_adapters"),
        env!("CARGO_BIN_EXE_text_to_image"),
        env!("CARGO_BIN_EXE_train_expert"),
        env!("CARGO_BIN_EXE_score_images"),
        env!("CARGO_BIN_EXE_mini_world"),
        env!("CARGO_BIN_EXE_resume_work"),
        env!("CARGO_BIN_EXE_run_recipe"),
    ] {
        let ended = run(program, folder.path(), &[]);
        assert_eq!(ended.code, Some(1), "{program}");
        assert!(
            ended.stderr.contains("usage: "),
            "{program}: {}",
            ended.stderr
        );
    }
}

use std::sync::Mutex;
use std::sync::atomic::AtomicUsize;
use std::time::Duration;

use super::*;
use crate::Message;

/// Answers with the text in capitals, in batches, and keeps what it was asked together.
#[derive(Default)]
struct Upper {
    batch: usize,
    asked: Mutex<Vec<Vec<String>>>,
    now: AtomicUsize,
    most: AtomicUsize,
}

impl Upper {
    fn new(batch: usize) -> Self {
        Self {
            batch,
            ..Self::default()
        }
    }
}

impl ChatModel for Upper {
    fn name(&self) -> &str {
        "upper"
    }

    fn complete(&self, request: &ChatRequest) -> Result<ChatResponse, LlmError> {
        let text = request.text();
        if text.starts_with("fail") {
            return Err(LlmError::Unsupported {
                model: "upper".to_owned(),
                what: text,
            });
        }
        Ok(ChatResponse::single("upper", text.to_uppercase()))
    }

    fn batch_len(&self, _: &[&ChatRequest]) -> usize {
        self.batch
    }

    fn ask(&self, requests: &[&ChatRequest]) -> Result<Answer, LlmError> {
        let now = self.now.fetch_add(1, Ordering::SeqCst) + 1;
        self.most.fetch_max(now, Ordering::SeqCst);
        let texts = requests.iter().map(|request| request.text()).collect();
        self.asked.lock().unwrap().push(texts);
        // Long enough for the others to begin.
        thread::sleep(Duration::from_millis(20));
        self.now.fetch_sub(1, Ordering::SeqCst);
        let responses = requests.iter().map(|request| self.complete(request));
        Ok(Answer::Read(responses.collect::<Result<_, _>>()?))
    }

    fn in_flight(&self) -> usize {
        4
    }
}

fn requests(texts: &[&str]) -> Vec<ChatRequest> {
    let request = |text: &&str| ChatRequest::new(vec![Message::user(*text)]);
    texts.iter().map(request).collect()
}

fn texts(responses: &[ChatResponse]) -> Vec<&str> {
    responses.iter().filter_map(ChatResponse::text).collect()
}

fn all(_: AskAllProgress) -> ControlFlow<()> {
    ControlFlow::Continue(())
}

#[test]
fn answers_come_in_order_and_several_at_a_time() {
    let asked = requests(&["a", "b", "c", "d", "e", "f", "g"]);
    for (in_flight, most) in [(4, 4), (1, 1), (0, 1), (100, 7)] {
        let model = Upper::new(1);
        let responses = AskAll::new(&model)
            .with_in_flight(in_flight)
            .run(&asked, &mut all);
        assert_eq!(
            texts(&responses.unwrap()),
            ["A", "B", "C", "D", "E", "F", "G"]
        );
        let found = model.most.load(Ordering::SeqCst);
        assert!(
            found <= most && (most == 1 || found > 1),
            "{in_flight}: {found}"
        );
    }
    assert!(
        AskAll::new(&Upper::new(1))
            .run(&[], &mut all)
            .unwrap()
            .is_empty()
    );
}

#[test]
fn requests_go_together_as_the_model_likes() {
    let model = Upper::new(3);
    let asked = requests(&["a", "b", "c", "d", "e", "f", "g"]);
    let mut seen = Vec::new();
    let responses = AskAll::new(&model)
        .with_in_flight(1)
        .run(&asked, &mut |progress| {
            seen.push((progress.answered, progress.total));
            ControlFlow::Continue(())
        });
    assert_eq!(
        texts(&responses.unwrap()),
        ["A", "B", "C", "D", "E", "F", "G"]
    );
    let sizes: Vec<usize> = model.asked.lock().unwrap().iter().map(Vec::len).collect();
    assert_eq!(sizes, [3, 3, 1]);
    assert_eq!(seen, [(3, 7), (6, 7), (7, 7)]);
}

#[test]
fn a_failure_ends_the_run_and_loses_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("journal.jsonl");
    let mut journal = Journal::open(&path).unwrap();
    let mut many = vec!["a", "b", "fail"];
    many.extend(["later"; 50]);
    let model = Upper::new(1);
    let error = AskAll::new(&model)
        .with_journal(&mut journal, 7)
        .with_in_flight(3)
        .run(&requests(&many), &mut all)
        .unwrap_err();
    assert!(matches!(error, LlmError::Unsupported { .. }), "{error}");
    // What was on its way is recorded, and nothing more was asked.
    let asked = model.asked.lock().unwrap().len();
    assert!((3..many.len()).contains(&asked), "{asked}");
    assert_eq!(journal.len(), asked - 1);
    drop(journal);

    let mut journal = Journal::open(&path).unwrap();
    many[2] = "c";
    let model = Upper::new(1);
    let mut first = None;
    let responses = AskAll::new(&model)
        .with_journal(&mut journal, 7)
        .run(&requests(&many), &mut |progress| {
            first.get_or_insert(progress);
            ControlFlow::Continue(())
        })
        .unwrap();
    assert_eq!(texts(&responses)[..4], ["A", "B", "C", "LATER"]);
    assert_eq!(model.asked.lock().unwrap().len(), many.len() - (asked - 1));
    let first = first.unwrap();
    assert_eq!((first.answered, first.replayed), (asked - 1, asked - 1));

    // The same text as another request of the run is another request, also for one who asks one by one.
    let request = &requests(&["later"])[0];
    assert!(journal.complete(&model, 10, request).unwrap().1);
    assert!(!journal.complete(&model, 6, request).unwrap().1);
}

#[test]
fn an_observer_can_stop() {
    let model = Upper::new(1);
    let many = requests(&["a"; 50]);
    let error = AskAll::new(&model)
        .with_in_flight(1)
        .run(&many, &mut |progress| match progress.answered {
            2 => ControlFlow::Break(()),
            _ => ControlFlow::Continue(()),
        })
        .unwrap_err();
    assert_eq!(error.to_string(), "stopped after 2 of 50 answers");
    assert!(model.asked.lock().unwrap().len() < 50);
}

#[test]
fn a_journal_that_is_replayed_asks_nobody() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("journal.jsonl");
    let mut journal = Journal::open(&path).unwrap();
    let asked = requests(&["a", "b"]);
    let model = Upper::new(2);
    AskAll::new(&model)
        .with_journal(&mut journal, 0)
        .run(&asked, &mut all)
        .unwrap();
    drop(journal);
    let mut journal = Journal::replay(&path).unwrap();
    let model = Upper::new(2);
    let responses = AskAll::new(&model)
        .with_journal(&mut journal, 0)
        .run(&asked, &mut all);
    assert_eq!(texts(&responses.unwrap()), ["A", "B"]);
    let more = requests(&["a", "b", "c"]);
    let error = AskAll::new(&model)
        .with_journal(&mut journal, 0)
        .run(&more, &mut all)
        .unwrap_err();
    assert!(
        matches!(error, LlmError::NotRecorded { index: 2, .. }),
        "{error}"
    );
    assert!(model.asked.lock().unwrap().is_empty());
}

#[test]
fn a_model_that_answers_too_little_is_caught() {
    struct Lazy;
    impl ChatModel for Lazy {
        fn name(&self) -> &str {
            "lazy"
        }
        fn complete(&self, _: &ChatRequest) -> Result<ChatResponse, LlmError> {
            Ok(ChatResponse::single("lazy", ""))
        }
        fn batch_len(&self, _: &[&ChatRequest]) -> usize {
            2
        }
        fn ask(&self, _: &[&ChatRequest]) -> Result<Answer, LlmError> {
            Ok(Answer::Read(vec![ChatResponse::single("lazy", "")]))
        }
    }
    let error = AskAll::new(&Lazy)
        .run(&requests(&["a", "b"]), &mut all)
        .unwrap_err();
    assert_eq!(
        error.to_string(),
        "expected responses to 2 requests, found 1"
    );
}

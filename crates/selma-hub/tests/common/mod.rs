//! A hub on loopback: a repository whose large files lie on a second server, as the real one's do.

#![allow(
    dead_code,
    unreachable_pub,
    reason = "each test program uses a part of this"
)]
#![allow(
    clippy::indexing_slicing,
    clippy::unwrap_used,
    reason = "helpers of tests fail by panicking, as tests do"
)]

use std::collections::BTreeMap;
use std::fs;
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use selma_http::loopback::{Act, Seen, Server};
use selma_hub::{Hub, HubConfig, HubError, HubEvent, Model, SecretString};
use sha2::{Digest as _, Sha256};

pub const TOKEN: &str = "hf_very_secret_0123456789";
/// The file that misbehaving servers misbehave at.
pub const UNET: &str = "unet/diffusion_pytorch_model.safetensors";
pub const COMMIT: &str = "39593d5650112b4cc580433f6b0435385882d819";
pub const REPOSITORY: &str = "owner/tiny-model";

/// Files by their paths; those with weights are large ones, which lie on the second server.
pub fn files() -> BTreeMap<String, Vec<u8>> {
    let index = r#"{"_class_name":"StableDiffusionPipeline",
        "safety_checker":["stable_diffusion","StableDiffusionSafetyChecker"],
        "scheduler":["diffusers","PNDMScheduler"],"text_encoder":["transformers","CLIPTextModel"],
        "tokenizer":["transformers","CLIPTokenizer"],"unet":["diffusers","UNet2DConditionModel"],
        "vae":["diffusers","AutoencoderKL"]}"#;
    let small = |text: &str| text.as_bytes().to_vec();
    let large = |seed: u8| {
        (0..200_000_u32)
            .map(|i| (i.wrapping_mul(2_654_435_761) >> 13) as u8 ^ seed)
            .collect()
    };
    [
        ("README.md", small("a model")),
        ("flax_model.msgpack", large(9)),
        ("model_index.json", small(index)),
        ("safety_checker/model.safetensors", large(8)),
        ("scheduler/scheduler_config.json", small("{}")),
        ("text_encoder/config.json", small("{\"a\":1}")),
        ("text_encoder/model.safetensors", large(1)),
        ("tokenizer/merges.txt", small("#version: 0.2\n")),
        ("tokenizer/vocab.json", small("{\"a\":0}")),
        ("unet/config.json", small("{\"b\":2}")),
        ("unet/diffusion_pytorch_model.bin", large(7)),
        ("unet/diffusion_pytorch_model.fp16.safetensors", large(6)),
        ("unet/diffusion_pytorch_model.safetensors", large(2)),
        ("vae/config.json", small("{\"c\":3}")),
        ("vae/diffusion_pytorch_model.safetensors", large(3)),
    ]
    .map(|(name, content)| (name.to_owned(), content))
    .into()
}

/// Those of [`files`] that a pipeline reads.
pub const NEEDED: [&str; 10] = [
    "model_index.json",
    "scheduler/scheduler_config.json",
    "text_encoder/config.json",
    "text_encoder/model.safetensors",
    "tokenizer/merges.txt",
    "tokenizer/vocab.json",
    "unet/config.json",
    "unet/diffusion_pytorch_model.safetensors",
    "vae/config.json",
    "vae/diffusion_pytorch_model.safetensors",
];

pub fn sha256(content: &[u8]) -> String {
    hex(&Sha256::digest(content))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Name of the blob of a file.
pub fn etag(name: &str, content: &[u8]) -> String {
    let sum = sha256(content);
    match is_large(name) {
        true => sum,
        false => sum[..40].to_owned(),
    }
}

pub fn is_large(name: &str) -> bool {
    ["safetensors", "bin", "msgpack", "ckpt"]
        .iter()
        .any(|ending| name.ends_with(ending))
}

/// The answer to a request for content, with ranges.
pub fn content(request: &Seen, content: &[u8]) -> Act {
    let from = request.header("range").map(|range| {
        let from = range
            .strip_prefix("bytes=")
            .unwrap()
            .strip_suffix('-')
            .unwrap();
        from.parse::<usize>().unwrap()
    });
    match from {
        None => Act::answer("200 OK", "", content),
        Some(from) if from < content.len() => {
            let (last, all) = (content.len() - 1, content.len());
            let range = format!("Content-Range: bytes {from}-{last}/{all}\r\n");
            Act::answer("206 Partial Content", &range, &content[from..])
        }
        Some(_) => Act::answer("416 Range Not Satisfiable", "", b""),
    }
}

/// What stands in for one of the two servers where it misbehaves; `None` is to behave.
pub type Twist = Box<dyn Fn(&Seen) -> Option<Act> + Send + Sync>;

/// The endpoint, and the server that it redirects to.
pub struct World {
    pub endpoint: Server,
    pub cdn: Server,
}

impl World {
    pub fn new(files: BTreeMap<String, Vec<u8>>) -> Self {
        Self::twisted(files, Box::new(|_| None), Box::new(|_| None))
    }

    pub fn twisted(files: BTreeMap<String, Vec<u8>>, endpoint: Twist, cdn: Twist) -> Self {
        let files = Arc::new(files);
        let stored = Arc::clone(&files);
        let cdn = Server::answering(move |request| {
            cdn(request).unwrap_or_else(|| {
                let path = request.path().split('?').next().unwrap();
                content(request, &stored[path.strip_prefix("/cdn/").unwrap()])
            })
        });
        let elsewhere = cdn.url().to_owned();
        let endpoint = Server::answering(move |request| {
            endpoint(request).unwrap_or_else(|| behave(request, &files, &elsewhere))
        });
        Self { endpoint, cdn }
    }

    pub fn config(&self, cache: &Path) -> HubConfig {
        let mut config = HubConfig::new(cache);
        config.endpoint = self.endpoint.url().to_owned();
        config.token = Some(SecretString::from(TOKEN));
        config.backoff_s = 0.001;
        config.backoff_cap_s = 0.002;
        config.max_retries = 2;
        config
    }

    pub fn hub(&self, cache: &Path) -> Hub {
        Hub::new(self.config(cache)).unwrap()
    }

    /// Fetches the model and tells what was told.
    pub fn fetch(&self, cache: &Path, id: &str) -> (Result<Model, HubError>, Vec<String>) {
        let mut told = Vec::new();
        let model = self
            .hub(cache)
            .fetch(&id.parse().unwrap(), None, &mut |event| {
                if !matches!(event, HubEvent::Progress { .. } | HubEvent::Waiting { .. }) {
                    told.push(format!("{event:?}"));
                }
                ControlFlow::Continue(())
            });
        (model, told)
    }

    /// Paths of the requests for files' content, as the second server saw them.
    pub fn downloads(&self) -> Vec<String> {
        let seen = self.cdn.seen();
        seen.iter().map(|seen| seen.path().to_owned()).collect()
    }
}

fn behave(request: &Seen, files: &BTreeMap<String, Vec<u8>>, elsewhere: &str) -> Act {
    let path = request.path();
    if path.starts_with(&format!("/api/models/{REPOSITORY}/revision/")) {
        let siblings: Vec<String> = files
            .iter()
            .map(|(name, content)| sibling(name, content))
            .collect();
        let body = format!(
            r#"{{"sha":"{COMMIT}","siblings":[{}]}}"#,
            siblings.join(",")
        );
        return Act::answer(
            "200 OK",
            "Content-Type: application/json\r\n",
            body.as_bytes(),
        );
    }
    let name = path.strip_prefix(&format!("/{REPOSITORY}/resolve/{COMMIT}/"));
    match name.and_then(|name| files.get_key_value(name)) {
        Some((name, found)) if is_large(name) => {
            let headers = format!(
                "Location: {elsewhere}/cdn/{name}?Signature=s3cret\r\nX-Linked-ETag: \"{}\"\r\nX-Linked-Size: {}\r\n",
                etag(name, found),
                found.len()
            );
            Act::answer("302 Found", &headers, b"")
        }
        Some((name, found)) if request.method() == "HEAD" => {
            let length = found.len();
            let etag = etag(name, found);
            let head = format!(
                "HTTP/1.1 200 OK\r\nETag: \"{etag}\"\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n"
            );
            Act::Send(head.into_bytes())
        }
        Some((_, found)) => content(request, found),
        None => Act::answer(
            "404 Not Found",
            "X-Error-Code: EntryNotFound\r\n",
            b"Entry not found",
        ),
    }
}

fn sibling(name: &str, content: &[u8]) -> String {
    let (etag, size) = (etag(name, content), content.len());
    if is_large(name) {
        format!(
            r#"{{"rfilename":"{name}","blobId":"{}","size":{size},"lfs":{{"sha256":"{etag}","size":{size},"pointerSize":135}}}}"#,
            &etag[..40]
        )
    } else {
        format!(r#"{{"rfilename":"{name}","blobId":"{etag}","size":{size}}}"#)
    }
}

pub fn honest() -> Twist {
    Box::new(|_| None)
}

/// Does `act` at the first `times` requests for the UNet's weights.
pub fn at_unet(times: usize, act: impl Fn(&Seen) -> Act + Send + Sync + 'static) -> Twist {
    let count = AtomicUsize::new(0);
    Box::new(move |request| {
        let first = request.path().contains(UNET) && count.fetch_add(1, Ordering::SeqCst) < times;
        first.then(|| act(request))
    })
}

pub fn assert_whole(path: &Path) {
    let expected = files();
    for name in NEEDED {
        assert_eq!(fs::read(path.join(name)).unwrap(), expected[name], "{name}");
    }
}

pub fn names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).unwrap();
    let mut names: Vec<String> = entries
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

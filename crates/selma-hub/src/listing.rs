//! What a repository holds: `GET /api/models/OWNER/NAME/revision/REVISION?blobs=true`.

use std::collections::BTreeMap;

use serde::Deserialize;

use crate::client::{Client, header};
use crate::id::{is_commit, is_relative};
use crate::url::{encode, encode_path};
use crate::{HubError, HubObserver, ModelId};

/// Largest listing that is read, in bytes.
const MAX_LISTING: u64 = 64 << 20;

/// The files of a commit.
#[derive(Debug)]
pub(crate) struct Listing {
    pub(crate) commit: String,
    /// By path; servers that do not know `blobs` leave the identity out.
    pub(crate) files: BTreeMap<String, Option<Identity>>,
}

/// What tells a file's content from others.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Identity {
    /// Name of the blob in the cache: the SHA-256 of a large file, Git's hash of a small one.
    pub(crate) etag: String,
    /// Length in bytes.
    pub(crate) size: u64,
}

impl Identity {
    fn new(etag: &str, size: u64) -> Option<Self> {
        let etag = etag.trim_start_matches("W/").trim_matches('"');
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
        // It becomes a file's name.
        let usable = (1..=128).contains(&etag.len()) && etag.bytes().all(plain);
        usable.then(|| Self {
            etag: etag.to_owned(),
            size,
        })
    }

    /// The SHA-256 of the content, in hexadecimal, if the etag is one.
    pub(crate) fn sha256(&self) -> Option<&str> {
        let hash = self.etag.len() == 64 && self.etag.bytes().all(|byte| byte.is_ascii_hexdigit());
        hash.then_some(&self.etag)
    }
}

#[derive(Debug, Deserialize)]
struct Answer {
    sha: String,
    #[serde(default)]
    siblings: Vec<Sibling>,
}

#[derive(Debug, Deserialize)]
struct Sibling {
    rfilename: String,
    #[serde(rename = "blobId")]
    blob_id: Option<String>,
    size: Option<u64>,
    lfs: Option<Lfs>,
}

#[derive(Debug, Deserialize)]
struct Lfs {
    #[serde(alias = "oid")]
    sha256: String,
    size: u64,
}

impl Sibling {
    fn identity(&self) -> Option<Identity> {
        match &self.lfs {
            Some(lfs) => Identity::new(&lfs.sha256, lfs.size),
            None => Identity::new(self.blob_id.as_deref()?, self.size?),
        }
    }
}

impl Listing {
    /// Asks for the files of the revision.
    pub(crate) fn get(
        client: &Client,
        id: &ModelId,
        observer: &mut HubObserver<'_>,
    ) -> Result<Self, HubError> {
        let url = client.url(&format!(
            "api/models/{}/revision/{}?blobs=true",
            id.repository,
            encode(id.revision())
        ));
        let text = client.persist(&url, &id.repository, observer, |_| {
            let mut response = client.get(&url, None)?;
            let body = response.body_mut().with_config().limit(MAX_LISTING);
            let text = body.read_to_string();
            Ok(text.map_err(crate::client::Failure::Transport)?)
        })?;
        Self::parse(&text).map_err(|reason| HubError::Answer {
            url: crate::url::shown(&url).to_owned(),
            reason,
        })
    }

    fn parse(text: &str) -> Result<Self, String> {
        let answer: Answer = serde_json::from_str(text).map_err(|error| error.to_string())?;
        if !is_commit(&answer.sha) {
            return Err(format!(
                "expected a commit in \"sha\", found {:?}",
                answer.sha
            ));
        }
        let files = answer
            .siblings
            .iter()
            // A path that leaves its folder is none that a model needs.
            .filter(|file| is_relative(&file.rfilename))
            .map(|file| (file.rfilename.clone(), file.identity()))
            .collect();
        Ok(Self {
            commit: answer.sha,
            files,
        })
    }
}

/// The address of a file.
pub(crate) fn file_url(client: &Client, repository: &str, commit: &str, file: &str) -> String {
    client.url(&format!(
        "{repository}/resolve/{commit}/{}",
        encode_path(file)
    ))
}

/// Asks for the identity of one file, by the headers of its address.
pub(crate) fn identify(
    client: &Client,
    url: &str,
    file: &str,
    observer: &mut HubObserver<'_>,
) -> Result<Identity, HubError> {
    let response = client.persist(url, file, observer, |_| Ok(client.head(url)?))?;
    let first = |names: [&str; 2]| names.into_iter().find_map(|name| header(&response, name));
    let etag = first(["x-linked-etag", "etag"]);
    let size = first(["x-linked-size", "content-length"]).and_then(|size| size.parse().ok());
    etag.zip(size)
        .and_then(|(etag, size)| Identity::new(etag, size))
        .ok_or_else(|| HubError::Answer {
            url: url.to_owned(),
            reason: "it has no etag, or no length".to_owned(),
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHA: &str = "39593d5650112b4cc580433f6b0435385882d819";

    #[test]
    fn large_and_small_files_are_told_apart() {
        let hash = "ab".repeat(32);
        let text = format!(
            r#"{{"id":"a/b","sha":"{SHA}","siblings":[
                {{"rfilename":"model_index.json","blobId":"{SHA}","size":541}},
                {{"rfilename":"unet/x.safetensors","blobId":"{SHA}","size":12,"lfs":{{"sha256":"{hash}","size":34,"pointerSize":12}}}},
                {{"rfilename":"README.md"}},
                {{"rfilename":"../evil"}}]}}"#
        );
        let listing = Listing::parse(&text).unwrap();
        assert_eq!(listing.commit, SHA);
        assert_eq!(listing.files.len(), 3);
        let small = listing.files["model_index.json"].as_ref().unwrap();
        assert_eq!((small.size, small.sha256()), (541, None));
        let large = listing.files["unet/x.safetensors"].as_ref().unwrap();
        assert_eq!((large.size, large.sha256()), (34, Some(hash.as_str())));
        assert_eq!(listing.files["README.md"], None);
    }

    #[test]
    fn answers_that_make_no_sense() {
        for text in ["", "[]", r#"{"sha":"main"}"#, r#"{"sha":"../../../x"}"#] {
            assert!(Listing::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn etags_lose_their_quotes_and_must_be_names() {
        assert_eq!(Identity::new("\"abc\"", 1).unwrap().etag, "abc");
        assert_eq!(Identity::new("W/\"abc\"", 1).unwrap().etag, "abc");
        for odd in ["", "\"\"", "../x", "a/b", "a b"] {
            assert_eq!(Identity::new(odd, 1), None, "{odd}");
        }
    }
}

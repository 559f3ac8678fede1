//! One file: from the server into the cache.

use std::io::Read as _;

use selma_durable::create_folder;
use ureq::http::StatusCode;

use crate::cache::{Cache, parent};
use crate::client::{Attempt, Client, Failure, header, tell};
use crate::listing::Identity;
use crate::partial::Partial;
use crate::{HubError, HubEvent, HubObserver};

/// Bytes that are read at a time.
const CHUNK: usize = 128 << 10;

/// A file that is wanted.
pub(crate) struct Wanted<'a> {
    /// Its path in the repository.
    pub(crate) file: &'a str,
    /// Its address.
    pub(crate) url: &'a str,
    /// Its content.
    pub(crate) identity: &'a Identity,
}

/// Counts bytes for the observer.
pub(crate) struct Meter {
    /// Those of files that are done.
    pub(crate) before: u64,
    /// Those of all files.
    pub(crate) total: u64,
    /// Those that were sent to us.
    pub(crate) received: u64,
}

impl Meter {
    /// Tells that so many bytes of a file are there.
    pub(crate) fn tell(
        &self,
        file: &str,
        done: u64,
        observer: &mut HubObserver<'_>,
    ) -> Result<(), HubError> {
        let progress = HubEvent::Progress {
            file,
            done: self.before + done,
            total: self.total,
            received: self.received,
        };
        tell(observer, progress)
    }
}

/// Brings a blob into the cache, unless it is there. One that another process downloads is waited for; what came in an earlier
/// attempt is not asked for again.
pub(crate) fn download(
    client: &Client,
    cache: &Cache,
    wanted: &Wanted<'_>,
    meter: &mut Meter,
    observer: &mut HubObserver<'_>,
) -> Result<(), HubError> {
    if cache.has_blob(wanted.identity) {
        return meter.tell(wanted.file, wanted.identity.size, observer);
    }
    let blob = cache.blob(&wanted.identity.etag);
    create_folder(parent(&blob))?;
    let _lock = cache.lock(&wanted.identity.etag, wanted.file, observer)?;
    if cache.has_blob(wanted.identity) {
        return meter.tell(wanted.file, wanted.identity.size, observer);
    }
    let mut partial = Partial::open(&blob.with_extension("incomplete"))?;
    // A wrong sum can come from a damaged file of an earlier attempt, so it gets a second one from the first byte on.
    let mut last = false;
    loop {
        client.persist(wanted.url, wanted.file, observer, |observer| {
            wanted.attempt(client, &mut partial, meter, observer)
        })?;
        let found = partial.sha256();
        match wanted.identity.sha256() {
            Some(expected) if expected != found && last => {
                partial.discard()?;
                return Err(HubError::Checksum {
                    url: wanted.url.to_owned(),
                    expected: expected.to_owned(),
                    found,
                });
            }
            Some(expected) if expected != found => {
                partial.restart()?;
                last = true;
            }
            _ => return partial.commit(&blob),
        }
    }
}

impl Wanted<'_> {
    /// One attempt to get what is missing.
    fn attempt(
        &self,
        client: &Client,
        partial: &mut Partial,
        meter: &mut Meter,
        observer: &mut HubObserver<'_>,
    ) -> Result<(), Attempt> {
        let size = self.identity.size;
        if partial.len() > size {
            partial.restart()?;
        }
        let from = partial.len();
        if from == size {
            return Ok(meter.tell(self.file, size, observer)?);
        }
        let mut response = client.get(self.url, (from > 0).then_some(from))?;
        let begins = match response.status() {
            StatusCode::PARTIAL_CONTENT => header(&response, "content-range").and_then(first_byte),
            // There is less than what we have.
            StatusCode::RANGE_NOT_SATISFIABLE => None,
            // The server ignores ranges and sends everything.
            _ => {
                partial.restart()?;
                Some(0)
            }
        };
        if begins != Some(partial.len()) {
            partial.restart()?;
            return Err(torn("it does not begin where it should").into());
        }
        let start = partial.len();
        let mut body = response.body_mut().as_reader();
        let mut buffer = vec![0; CHUNK];
        let outcome = loop {
            let read = match body.read(&mut buffer) {
                Ok(count) => buffer.get(..count).unwrap_or_default(),
                Err(error) => break Err(Failure::Transport(error.into())),
            };
            if read.is_empty() {
                break match partial.len() == size {
                    true => Ok(()),
                    false => Err(torn("it ends too early")),
                };
            }
            let left = size - partial.len();
            if read.len() as u64 > left {
                partial.restart()?;
                let url = self.url.to_owned();
                break Err(HubError::Size {
                    url,
                    expected: size,
                }
                .into());
            }
            partial.append(read, left)?;
            meter.received += read.len() as u64;
            meter.tell(self.file, partial.len(), observer)?;
        };
        outcome.map_err(|failure| Attempt {
            failure,
            progressed: partial.len() > start,
        })
    }
}

/// A connection that broke without saying so.
fn torn(reason: &str) -> Failure {
    let source = std::io::Error::new(std::io::ErrorKind::UnexpectedEof, reason);
    Failure::Transport(source.into())
}

/// The first byte of `bytes FIRST-LAST/SIZE`.
fn first_byte(range: &str) -> Option<u64> {
    let (first, _) = range.strip_prefix("bytes ")?.split_once('-')?;
    first.trim().parse().ok()
}

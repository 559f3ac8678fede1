//! A server in the test's own process that answers, and fails, as it is told to.

#![allow(
    clippy::expect_used,
    clippy::unwrap_used,
    reason = "this serves tests, which fail by panicking"
)]

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

/// What the server does with one connection. Then it closes it.
#[derive(Debug, Clone)]
pub enum Act {
    /// Sends these bytes.
    Send(Vec<u8>),
    /// Sends these bytes and then nothing for this long.
    Stall(Vec<u8>, Duration),
    /// Sends the bytes in pieces of this many, with a pause before each.
    Drip(Vec<u8>, usize, Duration),
    /// Sends the first bytes, and then the others again and again until the client goes away.
    Endless(Vec<u8>, Vec<u8>),
    /// Sends nothing.
    Hang,
}

impl Act {
    /// An answer with its length. `status` is code and reason, every line of `headers` ends with CR and LF.
    #[must_use]
    pub fn answer(status: &str, headers: &str, body: &[u8]) -> Self {
        let head = format!(
            "HTTP/1.1 {status}\r\nContent-Length: {}\r\nConnection: close\r\n{headers}\r\n",
            body.len()
        );
        Self::Send([head.as_bytes(), body].concat())
    }
}

/// One request as the server saw it.
#[derive(Debug, Clone)]
pub struct Seen {
    /// Request line and headers.
    pub head: String,
    /// What followed them.
    pub body: String,
}

impl Seen {
    /// The method.
    #[must_use]
    pub fn method(&self) -> &str {
        self.head.split(' ').next().unwrap_or_default()
    }

    /// What is asked for, with the query.
    #[must_use]
    pub fn path(&self) -> &str {
        self.head.split(' ').nth(1).unwrap_or_default()
    }

    /// A header's value; the name in lower case.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().skip(1).find_map(|line| {
            let (found, value) = line.split_once(':')?;
            (found.to_lowercase() == name).then_some(value.trim())
        })
    }
}

/// The server. It lives until the process ends.
#[derive(Debug, Clone)]
pub struct Server {
    url: String,
    seen: Arc<Mutex<Vec<Seen>>>,
}

impl Server {
    /// Serves one connection after the other by these acts; the last is repeated.
    ///
    /// # Panics
    /// If there is no act.
    #[must_use]
    pub fn scripted(acts: Vec<Act>) -> Self {
        let last = acts.last().expect("at least one act").clone();
        let acts = Mutex::new(acts.into_iter());
        Self::answering(move |_| acts.lock().unwrap().next().unwrap_or_else(|| last.clone()))
    }

    /// Serves all connections, each in a thread of its own, by what `answer` says.
    ///
    /// # Panics
    /// If no port can be had.
    #[must_use]
    pub fn answering(answer: impl Fn(&Seen) -> Act + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let seen = Arc::new(Mutex::new(Vec::new()));
        let log = Arc::clone(&seen);
        let answer = Arc::new(answer);
        thread::spawn(move || {
            for stream in listener.incoming() {
                let (log, answer) = (Arc::clone(&log), Arc::clone(&answer));
                thread::spawn(move || {
                    let mut reader = BufReader::new(stream.unwrap());
                    let Some(request) = read(&mut reader) else {
                        return;
                    };
                    log.lock().unwrap().push(request.clone());
                    act(reader.into_inner(), answer(&request));
                });
            }
        });
        Self { url, seen }
    }

    /// `http://127.0.0.1:PORT`.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }

    /// All requests so far.
    ///
    /// # Panics
    /// If a connection's thread has panicked.
    #[must_use]
    pub fn seen(&self) -> Vec<Seen> {
        self.seen.lock().unwrap().clone()
    }
}

/// A request; `None` if the client went away before its end.
fn read(reader: &mut BufReader<TcpStream>) -> Option<Seen> {
    let mut head = String::new();
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line).unwrap_or(0) == 0 {
            return None;
        }
        if line == "\r\n" {
            break;
        }
        head += &line;
    }
    let mut seen = Seen {
        head,
        body: String::new(),
    };
    let length = seen.header("content-length").map(str::parse);
    let mut body = vec![0; length.map_or(0, Result::unwrap)];
    reader.read_exact(&mut body).ok()?;
    seen.body = String::from_utf8(body).unwrap();
    Some(seen)
}

/// The client may have gone away already; that is its right, so failures to write are none.
fn act(mut stream: TcpStream, act: Act) {
    match act {
        Act::Send(bytes) => drop(stream.write_all(&bytes)),
        Act::Stall(bytes, pause) => {
            let _ = stream.write_all(&bytes);
            thread::sleep(pause);
        }
        Act::Drip(bytes, size, pause) => {
            for piece in bytes.chunks(size) {
                thread::sleep(pause);
                if stream.write_all(piece).is_err() {
                    break;
                }
            }
        }
        Act::Endless(head, piece) => {
            let _ = stream.write_all(&head);
            while stream.write_all(&piece).is_ok() {}
        }
        Act::Hang => {}
    }
}

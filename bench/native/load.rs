//! Callers: each sends the next request when it has the answer to the one before, on a connection of
//! its own, which it keeps.
//!
//!     load PORT CALLERS MILLISECONDS UNCOUNTED < REQUESTS
//!
//! The first UNCOUNTED milliseconds come before the others: what is asked in them is sent, but told of as `uncounted`
//! alone. REQUESTS are whole HTTP requests with a NUL between them; caller c of n sends the requests c, c + n,
//! c + 2n … over and over. One line of JSON tells what came of it: latencies in microseconds, the shortest first,
//! and how often each status was answered.

use std::{
    collections::BTreeMap,
    io::{Error, Read, Result, Write},
    net::TcpStream,
    sync::Arc,
    time::{Duration, Instant},
};

fn main() {
    let arguments: Vec<u64> = std::env::args().skip(1).filter_map(|text| text.parse().ok()).collect();
    let [port, callers, millis, uncounted] = arguments[..] else {
        panic!("usage: load PORT CALLERS MILLISECONDS UNCOUNTED < REQUESTS");
    };
    let mut requests = Vec::new();
    std::io::stdin().read_to_end(&mut requests).expect("standard input");
    let requests: Arc<Vec<Vec<u8>>> = Arc::new(requests.split(|byte| *byte == 0).map(<[u8]>::to_vec).collect());
    let started = Instant::now() + Duration::from_millis(uncounted);
    let until = started + Duration::from_millis(millis);
    let threads: Vec<_> = (0..callers)
        .map(|caller| {
            let mine: Vec<_> = (caller as usize..requests.len().max(callers as usize))
                .step_by(callers as usize)
                .map(|index| index % requests.len())
                .collect();
            let requests = Arc::clone(&requests);
            std::thread::spawn(move || call(port as u16, &requests, &mine, started, until))
        })
        .collect();
    let mut told = Told::default();
    for thread in threads {
        told.add(thread.join().expect("a caller"));
    }
    println!("{}", told.json(started.elapsed()));
}

#[derive(Default)]
struct Told {
    micros: Vec<u32>,
    uncounted: u64,
    statuses: BTreeMap<u16, u64>,
    broken: u64,
}

fn call(port: u16, requests: &[Vec<u8>], mine: &[usize], started: Instant, until: Instant) -> Told {
    let mut told = Told::default();
    let mut connection = None;
    for index in mine.iter().cycle() {
        let asked = Instant::now();
        if asked >= until {
            break;
        }
        match exchange(&mut connection, port, &requests[*index]) {
            Ok(_) if asked < started => told.uncounted += 1,
            Ok(status) => {
                told.micros.push(asked.elapsed().as_micros() as u32);
                *told.statuses.entry(status).or_default() += 1;
            }
            Err(_) => {
                connection = None;
                told.broken += 1;
            }
        }
    }
    told
}

/// Sends one request and reads its answer to the end; says its status.
fn exchange(connection: &mut Option<TcpStream>, port: u16, request: &[u8]) -> Result<u16> {
    if connection.is_none() {
        let stream = TcpStream::connect(("127.0.0.1", port))?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(Duration::from_secs(10)))?;
        *connection = Some(stream);
    }
    let stream = connection.as_mut().ok_or_else(|| Error::other("no connection"))?;
    stream.write_all(request)?;
    let mut answer = Vec::with_capacity(2_048);
    let mut piece = [0; 8_192];
    loop {
        match stream.read(&mut piece)? {
            0 => return Err(Error::other("the answer broke off")),
            length => answer.extend_from_slice(&piece[..length]),
        }
        if let Some(status) = whole(&answer) {
            return Ok(status);
        }
    }
}

/// The status of an answer that is here as a whole.
fn whole(answer: &[u8]) -> Option<u16> {
    let head = find(answer, b"\r\n\r\n")? + 4;
    let text = std::str::from_utf8(&answer[..head]).ok()?.to_ascii_lowercase();
    let body = &answer[head..];
    let is_whole = match text.split_once("\r\ncontent-length:") {
        Some((_, rest)) => body.len() >= rest.split("\r\n").next()?.trim().parse().ok()?,
        None if text.contains("chunked") => body.ends_with(b"0\r\n\r\n"),
        None => true,
    };
    is_whole.then(|| text.get(9..12)?.parse().ok())?
}

fn find(bytes: &[u8], pattern: &[u8]) -> Option<usize> {
    bytes.windows(pattern.len()).position(|window| window == pattern)
}

impl Told {
    fn add(&mut self, other: Self) {
        self.micros.extend(other.micros);
        self.uncounted += other.uncounted;
        self.broken += other.broken;
        for (status, count) in other.statuses {
            *self.statuses.entry(status).or_default() += count;
        }
    }

    fn json(&mut self, elapsed: Duration) -> String {
        self.micros.sort_unstable();
        let micros: Vec<_> = self.micros.iter().map(u32::to_string).collect();
        let statuses: Vec<_> = self.statuses.iter().map(|(status, count)| format!("\"{status}\":{count}")).collect();
        format!(
            "{{\"seconds\":{},\"requests\":{},\"uncounted\":{},\"broken\":{},\"micros\":[{}],\"statuses\":{{{}}}}}",
            elapsed.as_secs_f64(),
            self.micros.len(),
            self.uncounted,
            self.broken,
            micros.join(","),
            statuses.join(",")
        )
    }
}

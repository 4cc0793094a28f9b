//! The generator against servers that behave in known ways.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Mutex;

use super::*;

const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
const CLOSES: &str = "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nok";
const REFUSAL: &str = "HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n";

/// A server that gives each connection to a thread of its own; it ends with the tests.
fn serve(connection: impl Fn(TcpStream) + Send + Sync + 'static) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let connection: &'static _ = Box::leak(Box::new(connection));
    thread::spawn(move || listener.incoming().for_each(|stream| drop(thread::spawn(|| connection(stream.unwrap())))));
    address
}

/// Waits for one request; whether there was one.
fn receive(stream: &mut TcpStream) -> bool {
    let mut request = Vec::new();
    let mut buffer = [0; 1024];
    while !request.ends_with(b"\r\n\r\n") {
        match stream.read(&mut buffer) {
            Ok(count @ 1..) => request.extend_from_slice(&buffer[..count]),
            _ => return false,
        }
    }
    true
}

/// Answers each request with what `answer` says.
fn answering(answer: impl Fn() -> &'static str + Send + Sync + 'static) -> SocketAddr {
    serve(move |mut stream| {
        while receive(&mut stream) {
            let answer = answer();
            stream.write_all(answer.as_bytes()).unwrap();
            if answer == CLOSES {
                return;
            }
        }
    })
}

fn report(to: SocketAddr, arguments: &[&str]) -> serde_json::Value {
    let url = format!("http://{to}/");
    let fixed = ["openloop", &url, "--seconds", "0.5", "--warm-up", "0.1"];
    let options = Options::parse_from(fixed.iter().chain(arguments));
    check(&options).unwrap();
    let tally = load(&options, to, &request(&to.to_string(), "/", None)).unwrap();
    serde_json::to_value(tally.report()).unwrap()
}

#[test]
fn sends_each_call_of_the_schedule_once() {
    for (answer, threads) in [(OK, "1"), (OK, "2"), (CLOSES, "1")] {
        let report = report(answering(move || answer), &["--rate", "200", "--threads", threads]);
        assert_eq!(
            (&report["scheduled"], &report["answered"], &report["errors"]),
            (&100.into(), &100.into(), &0.into())
        );
    }
}

#[test]
fn refusals_are_counted_apart() {
    let turn = Mutex::new(0);
    let server = answering(move || {
        let mut turn = turn.lock().unwrap();
        *turn += 1;
        if *turn % 2 == 0 { OK } else { REFUSAL }
    });
    let report = report(server, &["--rate", "200"]);
    assert_eq!(report["answered"].as_u64().unwrap() + report["refused"].as_u64().unwrap(), 100);
    assert_eq!(report["statuses"]["503"], report["refused"]);
    assert!(report["refused"].as_u64().unwrap() >= 49);
}

/// A server that stops for a while delays every call that was due meanwhile, sent or not: with one connection all but
/// one of them wait in the generator, and a generator that measured from sending would see one slow call.
#[test]
fn a_pause_of_the_server_is_in_the_latency_of_all_calls_due_meanwhile() {
    let pause = Duration::from_millis(300);
    let answers = Mutex::new(0);
    let server = answering(move || {
        let mut answers = answers.lock().unwrap();
        *answers += 1;
        if *answers == 40 {
            thread::sleep(pause);
        }
        OK
    });
    let report = report(server, &["--rate", "200", "--connections", "1"]);
    assert_eq!(report["answered"], 100);
    assert!(report["waited"].as_u64().unwrap() >= 50, "{report}");
    assert!(report["latency_us"]["p90"].as_u64().unwrap() >= 200_000, "{report}");
    assert!(report["service_us"]["p90"].as_u64().unwrap() < 100_000, "{report}");
}

#[test]
fn a_grain_is_in_all_times() {
    let report = report(answering(|| OK), &["--rate", "200", "--grain", "20"]);
    assert_eq!((&report["answered"], &report["errors"]), (&100.into(), &0.into()));
    assert!(report["service_us"]["p50"].as_u64().unwrap() >= 19_000, "{report}");
}

#[test]
fn calls_without_an_answer_time_out() {
    let server = serve(|mut stream| while receive(&mut stream) {});
    let report = report(server, &["--rate", "20", "--timeout", "0.1", "--drain", "0.5"]);
    assert_eq!((&report["timeouts"], &report["answered"]), (&10.into(), &0.into()));
    assert!(report["latency_us"]["p50"].as_u64().unwrap() >= 100_000);
}

#[test]
fn calls_under_way_at_the_end_are_unanswered() {
    let server = serve(|mut stream| while receive(&mut stream) {});
    let report = report(server, &["--rate", "20", "--connections", "2", "--drain", "0"]);
    assert_eq!((&report["unanswered"], &report["scheduled"]), (&10.into(), &10.into()));
}

#[test]
fn a_server_that_hangs_up_is_an_error_for_each_call() {
    let server = serve(|mut stream| {
        receive(&mut stream);
    });
    let report = report(server, &["--rate", "20"]);
    assert_eq!((&report["errors"], &report["scheduled"]), (&10.into(), &10.into()));
}

#[test]
fn a_server_that_is_not_there_is_an_error_for_each_call() {
    let nobody = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let report = report(nobody, &["--rate", "20"]);
    assert_eq!((&report["errors"], &report["scheduled"]), (&10.into(), &10.into()));
}

#[test]
fn splits_urls() {
    assert_eq!(split("http://127.0.0.1:80/a/b").unwrap(), ("127.0.0.1:80", "/a/b"));
    assert_eq!(split("http://localhost:80").unwrap(), ("localhost:80", "/"));
    assert!(split("https://localhost:80/").is_err() && split("http://localhost/").is_err());
}

#[test]
fn shares_add_up() {
    assert_eq!((0..3).map(|thread| share(8, 3, thread)).collect::<Vec<_>>(), [3, 3, 2]);
}

//! Clients that hoard, announce and repeat: what they can make a node hold is bounded.

use crate::raw::{connect, exchange};
use annulus_node::config::Limits;
use std::sync::atomic::Ordering::SeqCst;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

#[tokio::test]
async fn what_there_is_no_memory_for_is_refused_and_those_who_read_get_everything() {
    let limits = Limits { client_bytes_max: 2 << 20, ..Limits::default() };
    let (served, mut first) = connect(limits).await;
    let value = "x".repeat(1 << 20);
    exchange(&mut first, format!("*3\r\n$3\r\nSET\r\n$1\r\na\r\n$1048576\r\n{value}\r\n").as_bytes(), "+OK\r\n")
        .await;
    let mut hoarders = Vec::new();
    for _ in 0..20 {
        // With little room in its socket, so that it stands still soon, however fast the machine is.
        let socket = tokio::net::TcpSocket::new_v4().unwrap();
        socket.set_recv_buffer_size(16 << 10).unwrap();
        let mut hoarder = socket.connect(served.address).await.unwrap();
        hoarder.write_all(&b"GET a\r\n".repeat(50)).await.unwrap();
        hoarders.push(hoarder);
    }
    // They fill their socket buffers, and then the memory there is for them.
    tokio::time::sleep(Duration::from_millis(500)).await;
    exchange(&mut first, b"PING\r\n", "+PONG\r\n").await;
    let mut refused = 0;
    for mut hoarder in hoarders {
        let mut all = Vec::new();
        hoarder.write_all(b"QUIT\r\n").await.unwrap();
        hoarder.read_to_end(&mut all).await.unwrap();
        let text = String::from_utf8(all).unwrap();
        let (values, refusals) = (text.matches("$1048576\r\n").count(), text.matches("-OVERLOADED").count());
        assert!(values + refusals == 50 && text.ends_with("+OK\r\n"), "{values} values, {refusals} refusals");
        refused += refusals;
    }
    assert!((1..1000).contains(&refused), "{refused}");
    exchange(&mut first, b"STRLEN a\r\n", ":1048576\r\n").await;
}

#[tokio::test]
async fn requests_that_are_announced_and_never_end_take_no_more_memory_than_there_is() {
    let limits = Limits { client_bytes_max: 16 << 20, ..Limits::default() };
    let (served, mut first) = connect(limits).await;
    let begun = [&b"*3\r\n$3\r\nSET\r\n$1\r\na\r\n$1048576\r\n"[..], &[b'x'; 1 << 10]].concat();
    let mut hoarders = Vec::new();
    for _ in 0..40 {
        let mut hoarder = TcpStream::connect(served.address).await.unwrap();
        hoarder.write_all(&begun).await.unwrap();
        // One after the other, so that each finds what those before it hold.
        exchange(&mut first, b"PING\r\n", "+PONG\r\n").await;
        tokio::time::sleep(Duration::from_millis(20)).await;
        hoarders.push(hoarder);
    }
    exchange(&mut first, b"SET b 1\r\nGET b\r\n", "+OK\r\n$1\r\n1\r\n").await;
    let (mut stored, mut refused) = (0, 0);
    for mut hoarder in hoarders {
        hoarder.write_all(&vec![b'x'; (1 << 20) - (1 << 10)]).await.unwrap();
        hoarder.write_all(b"\r\nQUIT\r\n").await.unwrap();
        let mut all = String::new();
        hoarder.read_to_string(&mut all).await.unwrap();
        stored += all.matches("+OK\r\n+OK\r\n").count();
        refused += all.matches("-OVERLOADED").count();
        assert!(all.ends_with("+OK\r\n"), "the connection goes on: {all}");
    }
    assert_eq!((stored + refused, (8..=14).contains(&stored)), (40, true), "{stored} stored, {refused} refused");
    exchange(&mut first, b"STRLEN a\r\n", ":1048576\r\n").await;
}

#[tokio::test]
async fn a_page_that_makes_a_browser_send_commands_gets_none_carried_out() {
    let (served, mut first) = connect(Limits::default()).await;
    for sent in ["POST / HTTP/1.1\r\nHost: a\r\n\r\nSET evil 1\r\n", "GET a\r\nhost: a\r\nSET evil 1\r\n"] {
        let mut browser = TcpStream::connect(served.address).await.unwrap();
        browser.write_all(sent.as_bytes()).await.unwrap();
        let mut all = Vec::new();
        // What it sent and nobody read may make the end of the connection a reset.
        let end = tokio::time::timeout(Duration::from_secs(10), browser.read_to_end(&mut all)).await;
        assert!(end.is_ok(), "the connection is still open after {sent:?}");
    }
    exchange(&mut first, b"EXISTS evil\r\nPING\r\n", ":0\r\n+PONG\r\n").await;
}

#[tokio::test]
async fn keys_named_many_times_are_read_a_few_at_once() {
    let (served, mut connection) = connect(Limits::default()).await;
    exchange(&mut connection, b"SADD s a b\r\nSET k v\r\n", ":2\r\n+OK\r\n").await;
    served.store.delay_ms.store(1, SeqCst);
    let request = |name: &str, keys: &str| format!("{name}{}\r\n", format!(" {keys}").repeat(1000));
    exchange(&mut connection, request("SINTER", "s").as_bytes(), "*2\r\n$1\r\na\r\n$1\r\nb\r\n").await;
    exchange(&mut connection, request("EXISTS", "k").as_bytes(), ":1000\r\n").await;
    let values = format!("*1000\r\n{}", "$1\r\nv\r\n".repeat(1000));
    exchange(&mut connection, request("MGET", "k").as_bytes(), &values).await;
    let most = served.store.most_under_way.load(SeqCst);
    assert!((8..=64).contains(&most), "{most} at once");
}

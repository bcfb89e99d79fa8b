//! Pipelines: as much as possible side by side, and yet as if one after the other; and what happens at the end.

use crate::memory::{Memory, serve};
use crate::raw::{connect, exchange};
use annulus_node::config::Limits;
use std::sync::atomic::Ordering::SeqCst;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

#[tokio::test]
async fn different_keys_go_side_by_side_and_replies_keep_their_order() {
    let (served, mut connection) = connect(Limits::default()).await;
    served.store.delay_ms.store(50, SeqCst);
    let request: String = (0..500).map(|key| format!("SET key{key} {key}\r\n")).collect();
    exchange(&mut connection, request.as_bytes(), &"+OK\r\n".repeat(500)).await;
    assert!(served.store.most_under_way.load(SeqCst) > 100, "they went side by side");
    let request: String = (0..500).map(|key| format!("GET key{key}\r\n")).collect();
    let expected: String = (0..500).map(|key| format!("${}\r\n{key}\r\n", key.to_string().len())).collect();
    exchange(&mut connection, request.as_bytes(), &expected).await;
}

#[tokio::test]
async fn commands_on_one_key_take_effect_in_their_order() {
    let (served, mut connection) = connect(Limits::default()).await;
    served.store.delay_ms.store(1, SeqCst);
    let (mut request, mut expected) = (String::new(), String::new());
    for round in 100..200 {
        request +=
            &format!("SET a {round}\r\nGET a\r\nGET a\r\nMSET b {round} a x\r\nMGET a b\r\nDEL a\r\nGET a\r\n");
        expected += &format!(
            "+OK\r\n$3\r\n{round}\r\n$3\r\n{round}\r\n+OK\r\n*2\r\n$1\r\nx\r\n$3\r\n{round}\r\n:1\r\n$-1\r\n"
        );
    }
    exchange(&mut connection, request.as_bytes(), &expected).await;
}

/// What clients send by the thousand: a write and something on the same key after it.
#[tokio::test]
async fn who_waits_for_its_key_holds_up_nobody_else() {
    let (served, mut connection) = connect(Limits::default()).await;
    served.store.delay_ms.store(50, SeqCst);
    let request: String = (100..400).map(|key| format!("SET {key} {key}\r\nGET {key}\r\n")).collect();
    let expected: String = (100..400).map(|key| format!("+OK\r\n$3\r\n{key}\r\n")).collect();
    exchange(&mut connection, request.as_bytes(), &expected).await;
    assert!(served.store.most_under_way.load(SeqCst) > 100, "they went side by side");
    // Many for one key: each waits for the one before.
    served.store.delay_ms.store(0, SeqCst);
    let request: String = (0..2000).map(|turn| format!("SET a {turn}\r\nSTRLEN a\r\n")).collect();
    let expected: String = (0..2000).map(|turn: u32| format!("+OK\r\n:{}\r\n", turn.to_string().len())).collect();
    exchange(&mut connection, request.as_bytes(), &expected).await;
}

#[tokio::test]
async fn a_count_sees_what_the_connection_wrote_before_it() {
    let (served, mut connection) = connect(Limits::default()).await;
    served.store.delay_ms.store(20, SeqCst);
    exchange(
        &mut connection,
        b"SET a 1\r\nSET b 1\r\nDBSIZE\r\nSET c 1\r\nDBSIZE\r\n",
        "+OK\r\n+OK\r\n:2\r\n+OK\r\n:3\r\n",
    )
    .await;
}

#[tokio::test]
async fn a_client_that_takes_no_replies_is_not_read_from_without_end() {
    let limits = Limits { connection_reply_bytes_max: 1 << 20, ..Limits::default() };
    let served = serve(Memory::new(limits)).await;
    let mut connection = TcpStream::connect(served.address).await.unwrap();
    let value = "x".repeat(100_000);
    exchange(
        &mut connection,
        format!("*3\r\n$3\r\nSET\r\n$1\r\na\r\n$100000\r\n{value}\r\n").as_bytes(),
        "+OK\r\n",
    )
    .await;
    // A hundred thousand replies of 100 kB are asked for and none taken.
    let request = "GET a\r\n".repeat(100_000);
    let (mut reader, mut writer) = connection.into_split();
    let writing = tokio::spawn(async move {
        writer.write_all(request.as_bytes()).await.unwrap();
        writer
    });
    tokio::time::sleep(Duration::from_millis(300)).await;
    let text = served.metrics.encode().unwrap();
    let line =
        text.lines().find(|line| line.contains("duration_seconds_count{interface=\"resp\",operation=\"get\"}"));
    let carried_out: u64 = line.unwrap().rsplit(' ').next().unwrap().parse().unwrap();
    assert!(carried_out < 3000, "{carried_out} commands were carried out though no reply was taken");
    // As soon as they are taken it goes on.
    let mut taken = vec![0; 1 << 20];
    let mut left = 5000 * (value.len() + 11);
    while left > 0 {
        left = left.saturating_sub(reader.read(&mut taken).await.unwrap());
    }
    drop((reader, writing));
}

#[tokio::test]
async fn at_the_end_what_was_received_is_answered() {
    let served = serve(Memory::new(Limits::default())).await;
    let mut connection = TcpStream::connect(served.address).await.unwrap();
    let mut idle = TcpStream::connect(served.address).await.unwrap();
    exchange(&mut idle, b"PING\r\n", "+PONG\r\n").await;
    exchange(&mut connection, b"PING\r\n", "+PONG\r\n").await;
    served.store.delay_ms.store(200, SeqCst);
    connection.write_all(b"SET a 1\r\nSET a 2\r\nGET a\r\n").await.unwrap();
    tokio::time::sleep(Duration::from_millis(50)).await;
    served.shutdown.cancel();
    exchange(&mut connection, b"", "+OK\r\n+OK\r\n$1\r\n2\r\n").await;
    assert_eq!(connection.read(&mut [0; 8]).await.unwrap(), 0, "then it is closed");
    assert_eq!(idle.read(&mut [0; 8]).await.unwrap(), 0, "those that do nothing are closed too");
    tokio::time::timeout(Duration::from_secs(5), served.server).await.unwrap().unwrap();
    assert!(TcpStream::connect(served.address).await.is_err(), "nobody listens any more");
}

#[tokio::test]
async fn a_client_that_closes_its_half_gets_its_replies() {
    let (served, mut connection) = connect(Limits::default()).await;
    served.store.delay_ms.store(50, SeqCst);
    connection.write_all(b"SET a 1\r\nGET a\r\n").await.unwrap();
    connection.shutdown().await.unwrap();
    let mut replies = String::new();
    connection.read_to_string(&mut replies).await.unwrap();
    assert_eq!(replies, "+OK\r\n$1\r\n1\r\n");
}

//! Bytes on the wire: replies in both versions of the protocol, arity and error texts, limits.

use crate::memory::{Memory, Served, serve};
use annulus_node::config::Limits;
use annulus_node::coordinator::RequestError;
use dynamo::hlc::Hlc;
use dynamo::object::{Payload, Value};
use std::sync::atomic::Ordering::SeqCst;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// Sends bytes and reads as many as the expected reply has.
pub async fn exchange(connection: &mut TcpStream, request: &[u8], expected: &str) {
    connection.write_all(request).await.unwrap();
    let mut reply = vec![0; expected.len()];
    let read = tokio::time::timeout(Duration::from_secs(10), connection.read_exact(&mut reply)).await;
    let request = String::from_utf8_lossy(request);
    let got = String::from_utf8_lossy(&reply);
    assert!(matches!(read, Ok(Ok(_))), "{request:?}: expected {expected:?}, got {:?}", got.trim_end_matches('\0'));
    assert_eq!(got, expected, "{request:?}");
}

pub async fn connect(limits: Limits) -> (Served, TcpStream) {
    let served = serve(Memory::new(limits)).await;
    let connection = TcpStream::connect(served.address).await.unwrap();
    (served, connection)
}

pub async fn check(cases: &[(&str, &str)]) {
    let (_served, mut connection) = connect(Limits::default()).await;
    for (request, expected) in cases {
        let request = format!("{request}\r\n");
        exchange(&mut connection, request.as_bytes(), &format!("{expected}\r\n")).await;
    }
}

#[tokio::test]
async fn strings_and_keys() {
    check(&[
        ("PING", "+PONG"),
        ("ping hi", "$2\r\nhi"),
        ("ECHO \"a b\"", "$3\r\na b"),
        ("GET a", "$-1"),
        ("SET a 1", "+OK"),
        ("GET a", "$1\r\n1"),
        ("SET a 2 GET", "$1\r\n1"),
        ("GETSET a 3", "$1\r\n2"),
        ("SET none x GET", "$-1"),
        ("MSET x 1 y 2 x 3", "+OK"),
        ("MGET x y z x", "*4\r\n$1\r\n3\r\n$1\r\n2\r\n$-1\r\n$1\r\n3"),
        ("EXISTS x x y z", ":3"),
        ("TOUCH x z", ":1"),
        ("STRLEN x", ":1"),
        ("STRLEN z", ":0"),
        ("SET long \"This is a string\"", "+OK"),
        ("GETRANGE long -3 -1", "$3\r\ning"),
        ("GETRANGE z 0 -1", "$0\r\n"),
        ("TYPE x", "+string"),
        ("TYPE z", "+none"),
        ("DBSIZE", ":5"),
        ("DEL x y z x", ":2"),
        ("UNLINK a", ":1"),
        ("DEL a", ":0"),
        ("GET a", "$-1"),
        ("DBSIZE", ":2"),
    ])
    .await;
}

#[tokio::test]
async fn expiry() {
    check(&[
        ("TTL a", ":-2"),
        ("SET a 1 EX 100", "+OK"),
        ("TTL a", ":100"),
        ("SET a 2 KEEPTTL", "+OK"),
        ("TTL a", ":100"),
        ("GET a", "$1\r\n2"),
        ("PERSIST a", ":1"),
        ("PERSIST a", ":0"),
        ("TTL a", ":-1"),
        ("PTTL a", ":-1"),
        ("EXPIRETIME a", ":-1"),
        ("EXPIREAT a 33177117420", ":1"),
        ("EXPIRETIME a", ":33177117420"),
        ("PEXPIRETIME a", ":33177117420000"),
        ("PEXPIREAT a 33177117421500", ":1"),
        ("EXPIRETIME a", ":33177117422"),
        ("GETEX a PERSIST", "$1\r\n2"),
        ("TTL a", ":-1"),
        ("GETEX a EX 50", "$1\r\n2"),
        ("TTL a", ":50"),
        ("GETEX a", "$1\r\n2"),
        ("TTL a", ":50"),
        ("SET a 3", "+OK"),
        ("TTL a", ":-1"),
        ("SETEX a 10 4", "+OK"),
        ("TTL a", ":10"),
        ("PSETEX a 20000 5", "+OK"),
        ("TTL a", ":20"),
        ("PEXPIRE a 30000", ":1"),
        ("TTL a", ":30"),
        ("EXPIRE a -1", ":1"),
        ("GET a", "$-1"),
        ("EXPIRE a 100", ":0"),
        ("SET a 1 EXAT 1", "+OK"),
        ("GET a", "$-1"),
    ])
    .await;
}

#[tokio::test]
async fn a_value_expires_when_its_time_has_come() {
    let (served, mut connection) = connect(Limits::default()).await;
    exchange(&mut connection, b"SET a 1 PX 5000\r\n", "+OK\r\n").await;
    served.store.ahead_ms.store(4000, SeqCst);
    exchange(&mut connection, b"GET a\r\n", "$1\r\n1\r\n").await;
    served.store.ahead_ms.store(6000, SeqCst);
    exchange(&mut connection, b"GET a\r\nTTL a\r\nDBSIZE\r\nEXISTS a\r\n", "$-1\r\n:-2\r\n:0\r\n:0\r\n").await;
}

#[tokio::test]
async fn errors_are_those_of_redis() {
    check(&[
        ("GET", "-ERR wrong number of arguments for 'get' command"),
        ("get a b", "-ERR wrong number of arguments for 'get' command"),
        ("MSET a 1 b", "-ERR wrong number of arguments for 'mset' command"),
        ("PING a b", "-ERR wrong number of arguments for 'ping' command"),
        ("CLIENT", "-ERR wrong number of arguments for 'client' command"),
        ("CLIENT ID x", "-ERR wrong number of arguments for 'client|id' command"),
        ("CLIENT FOO", "-ERR unknown subcommand 'FOO'. Try CLIENT HELP."),
        ("foo bar baz", "-ERR unknown command 'foo', with args beginning with: 'bar' 'baz' "),
        ("foo", "-ERR unknown command 'foo', with args beginning with: "),
        ("SET a b EX", "-ERR syntax error"),
        ("SET a b EX 0", "-ERR invalid expire time in 'set' command"),
        ("SET a b EX abc", "-ERR value is not an integer or out of range"),
        ("SET a b EX 1 PX 1", "-ERR syntax error"),
        ("SET a b PX 9223372036854775807", "-ERR invalid expire time in 'set' command"),
        ("SETEX a -1 b", "-ERR invalid expire time in 'setex' command"),
        ("PSETEX a 0 b", "-ERR invalid expire time in 'psetex' command"),
        ("EXPIRE a 9223372036854775807", "-ERR invalid expire time in 'expire' command"),
        ("EXPIRE a abc", "-ERR value is not an integer or out of range"),
        ("EXPIRE a 1 FOO", "-ERR Unsupported option FOO"),
        ("GETRANGE a x 1", "-ERR value is not an integer or out of range"),
        ("SCAN abc", "-ERR invalid cursor"),
        ("SCAN 9007199254740992", "-ERR invalid cursor"),
        ("SCAN 0 COUNT 0", "-ERR syntax error"),
        ("SCAN 0 FOO", "-ERR syntax error"),
        ("SELECT 0", "+OK"),
        ("SELECT 1x", "-ERR value is not an integer or out of range"),
        ("SELECT 1", "-ERR DB index is out of range: there is database 0 only, as in Redis Cluster"),
        ("HELLO 4", "-NOPROTO unsupported protocol version"),
        ("HELLO x", "-ERR Protocol version is not an integer or out of range"),
        ("HELLO 3 FOO", "-ERR Syntax error in HELLO option 'FOO'"),
        ("AUTH a b", "-WRONGPASS invalid username-password pair or user is disabled."),
        (
            "AUTH a",
            "-ERR AUTH <password> called without any password configured for the default user. \
             Are you sure your configuration is correct?",
        ),
        ("COMMAND GETKEYS mset a b c d", "*2\r\n$1\r\na\r\n$1\r\nc"),
        ("COMMAND GETKEYS ping", "-ERR The command has no key arguments"),
        ("WAIT 1 0", ":1"),
        ("RESET", "+RESET"),
    ])
    .await;
}

#[tokio::test]
async fn what_cannot_be_done_without_a_leader_is_refused_and_says_so() {
    const WHY: &str = "reads and writes several keys in one step; there is no place where all of them could be read \
                       and written at once";
    let (served, mut connection) = connect(Limits::default()).await;
    for (request, what) in [("MSETNX a b", "msetnx"), ("RENAME a b", "rename"), ("SMOVE a b c", "smove")] {
        let request = format!("{request}\r\n");
        exchange(&mut connection, request.as_bytes(), &format!("-ERR ANNULUS unsupported: '{what}' {WHY}\r\n"))
            .await;
    }
    exchange(&mut connection, b"LPUSH a b\r\n", "-ERR ANNULUS unsupported: 'lpush' works on a type").await;
    let mut connection = TcpStream::connect(served.address).await.unwrap();
    exchange(&mut connection, b"FLUSHALL\r\n", "-ERR ANNULUS unsupported: 'flushall' is not allowed").await;
    assert!(served.store.object(b"a").is_empty(), "nothing was written");
}

#[tokio::test]
async fn failures_of_the_store_have_the_prefixes_that_clients_know() {
    let (served, mut connection) = connect(Limits::default()).await;
    let bytes = (9, 8);
    for (failure, expected) in [
        (RequestError::NoRing, "-LOADING this node has no ring yet"),
        (
            RequestError::Unavailable { got: 1, need: 2, missing: "demo-2".into() },
            "-CLUSTERDOWN 1 of 2 needed replicas answered; missing: demo-2\r\n",
        ),
        (RequestError::TimedOut(Duration::from_secs(5)), "-CLUSTERDOWN timed out after 5s\r\n"),
        (
            RequestError::Overloaded("the queue is full"),
            "-OVERLOADED overloaded: the queue is full; try again later\r\n",
        ),
        (RequestError::DiskFull { bytes_free: 1, bytes_reserved: 2 }, "-DISKFULL disk full: 1 bytes free"),
        (RequestError::Storage("x\r\ny".into()), "-IOERR storage failed: x  y\r\n"),
        (
            RequestError::ValueTooLong { bytes: bytes.0, bytes_max: bytes.1 },
            "-ERR value too large (9 bytes, limit 8)\r\n",
        ),
        (
            RequestError::KeyTooLong { bytes: bytes.0, bytes_max: bytes.1 },
            "-ERR key too large (9 bytes, limit 8)\r\n",
        ),
    ] {
        *served.store.failure.lock().unwrap() = Some(failure);
        let mut connection = TcpStream::connect(served.address).await.unwrap();
        exchange(&mut connection, b"SET a 1\r\n", expected).await;
    }
    *served.store.failure.lock().unwrap() = None;
    exchange(&mut connection, b"SET a 1\r\n", "+OK\r\n").await;
}

#[tokio::test]
async fn the_third_version_after_hello() {
    let (_served, mut connection) = connect(Limits::default()).await;
    exchange(
        &mut connection,
        b"HELLO\r\n",
        "*14\r\n$6\r\nserver\r\n$5\r\nredis\r\n$7\r\nversion\r\n$5\r\n7.2.5\r\n",
    )
    .await;
    let rest = "$5\r\nproto\r\n:2\r\n$2\r\nid\r\n:1\r\n$4\r\nmode\r\n$7\r\ncluster\r\n$4\r\nrole\r\n$6\r\nmaster\r\n$7\r\nmodules\r\n*0\r\n";
    exchange(&mut connection, b"", rest).await;
    // Replies of commands that came before HELLO, in one write with it, are still of the second version.
    exchange(&mut connection, b"GET a\r\nHELLO 3 SETNAME me\r\n", "$-1\r\n%7\r\n$6\r\nserver\r\n").await;
    let mut rest = vec![0; 1024];
    let read = connection.read(&mut rest).await.unwrap();
    assert!(rest[..read].ends_with(b"$7\r\nmodules\r\n*0\r\n"));
    exchange(&mut connection, b"GET a\r\nMGET a\r\n", "_\r\n*1\r\n_\r\n").await;
    exchange(&mut connection, b"CLIENT GETNAME\r\n", "$2\r\nme\r\n").await;
    exchange(&mut connection, b"CONFIG GET appendonly\r\n", "%1\r\n$10\r\nappendonly\r\n$3\r\nyes\r\n").await;
    exchange(
        &mut connection,
        b"COMMAND INFO get\r\n",
        "*1\r\n*10\r\n$3\r\nget\r\n:2\r\n~2\r\n+readonly\r\n+fast\r\n",
    )
    .await;
}

#[tokio::test]
async fn a_value_over_the_limit_is_refused_and_the_connection_goes_on() {
    let (served, mut connection) = connect(Limits { value_bytes_max: 100_000, ..Limits::default() }).await;
    let mut request = b"*3\r\n$3\r\nSET\r\n$1\r\na\r\n$1000000\r\n".to_vec();
    request.extend(vec![b'x'; 1_000_000]);
    request.extend(b"\r\nPING\r\n");
    exchange(&mut connection, &request, "-ERR value too large (1000000 bytes, limit 100000)\r\n+PONG\r\n").await;
    assert!(served.store.object(b"a").is_empty());
    let request = [b"SET " as &[u8], &[b'k'; 65_000], b" v\r\n"].concat();
    exchange(&mut connection, &request, "+OK\r\n").await;
}

#[tokio::test]
async fn a_protocol_error_is_answered_and_ends_the_connection() {
    let (_served, mut connection) = connect(Limits::default()).await;
    let expected = "+PONG\r\n-ERR Protocol error: expected '$', got ':'\r\n";
    exchange(&mut connection, b"PING\r\n*2\r\n:1\r\nPING\r\n", expected).await;
    assert_eq!(connection.read(&mut [0; 16]).await.unwrap_or(0), 0);
}

#[tokio::test]
async fn quit_answers_and_closes_and_the_rest_is_dropped() {
    let (served, mut connection) = connect(Limits::default()).await;
    exchange(&mut connection, b"SET a 1\r\nQUIT\r\nSET b 1\r\n", "+OK\r\n+OK\r\n").await;
    assert_eq!(connection.read(&mut [0; 16]).await.unwrap_or(0), 0);
    assert!(served.store.object(b"b").is_empty());
}

#[tokio::test]
async fn replies_can_be_left_out() {
    let (_served, mut connection) = connect(Limits::default()).await;
    let request = b"CLIENT REPLY SKIP\r\nPING 1\r\nPING 2\r\nCLIENT REPLY OFF\r\nPING 3\r\nGET a\r\nCLIENT REPLY ON\r\nPING 4\r\n";
    exchange(&mut connection, request, "$1\r\n2\r\n+OK\r\n$1\r\n4\r\n").await;
}

#[tokio::test]
async fn one_client_too_many_is_told_so() {
    let (served, mut first) = connect(Limits { connections_max: 1, ..Limits::default() }).await;
    exchange(&mut first, b"PING\r\n", "+PONG\r\n").await;
    let mut second = TcpStream::connect(served.address).await.unwrap();
    exchange(&mut second, b"", "-ERR max number of clients reached\r\n").await;
    drop(first);
    // The place is free as soon as the server has noticed.
    for attempt in 0.. {
        let mut third = TcpStream::connect(served.address).await.unwrap();
        let mut kind = [0];
        third.write_all(b"PING\r\n").await.unwrap();
        if third.read_exact(&mut kind).await.is_ok() && kind == *b"+" {
            break;
        }
        assert!(attempt < 500, "the place never became free");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test]
async fn of_concurrent_values_the_last_writer_s_is_shown_and_a_set_replaces_them_all() {
    let (served, mut connection) = connect(Limits::default()).await;
    let value = |text: &'static str, timestamp| Value {
        timestamp: Hlc(timestamp),
        expires_at_ms: None,
        payload: Payload::Bytes(text.into()),
    };
    served.store.put_blind(b"a", value("later", 20), 8);
    served.store.put_blind(b"a", value("earlier", 10), 9);
    exchange(&mut connection, b"GET a\r\n", "$5\r\nlater\r\n").await;
    // A delete that is later still wins over both.
    served.store.put_blind(b"a", Value { payload: Payload::Tombstone, ..value("", 30) }, 10);
    exchange(&mut connection, b"GET a\r\nEXISTS a\r\n", "$-1\r\n:0\r\n").await;
    assert_eq!(served.store.object(b"a").sibling_count(), 3);
    exchange(&mut connection, b"SET a 1\r\nGET a\r\n", "+OK\r\n$1\r\n1\r\n").await;
    assert_eq!(served.store.object(b"a").sibling_count(), 1);
}

#[tokio::test]
async fn the_cluster_as_redis_cluster_clients_read_it() {
    let (served, mut connection) = connect(Limits::default()).await;
    let one = "0000000000000000000000000000000100000000";
    let two = "0000000000000000000000000000000200000000";
    let three = "0000000000000000000000000000000300000000";
    let expected = format!(
        "*64\r\n*5\r\n:0\r\n:255\r\n\
         *4\r\n$9\r\n127.0.0.1\r\n:7001\r\n$40\r\n{one}\r\n*0\r\n\
         *4\r\n$11\r\nnode-1.demo\r\n:6379\r\n$40\r\n{two}\r\n*0\r\n\
         *4\r\n$3\r\n::1\r\n:6379\r\n$40\r\n{three}\r\n*0\r\n*5\r\n:256\r\n:511\r\n"
    );
    exchange(&mut connection, b"CLUSTER SLOTS\r\n", &expected).await;
    let mut connection = TcpStream::connect(served.address).await.unwrap();
    exchange(&mut connection, b"CLUSTER MYID\r\n", &format!("$40\r\n{one}\r\n")).await;
    exchange(&mut connection, b"CLUSTER KEYSLOT foo{bar}baz\r\n", ":5061\r\n").await;
    exchange(&mut connection, b"CLUSTER INFO\r\n", "$201\r\ncluster_state:ok\r\ncluster_slots_assigned:16384\r\n")
        .await;
    // A member that cannot be reached leads no slots, and follows in none.
    *served.store.unreachable.lock().unwrap() = vec!["demo-0".into()];
    let mut connection = TcpStream::connect(served.address).await.unwrap();
    let expected =
        format!("*43\r\n*4\r\n:0\r\n:511\r\n*4\r\n$11\r\nnode-1.demo\r\n:6379\r\n$40\r\n{two}\r\n*0\r\n");
    exchange(&mut connection, b"CLUSTER SLOTS\r\n", &expected).await;
    served.store.without_ring.store(true, SeqCst);
    let mut connection = TcpStream::connect(served.address).await.unwrap();
    exchange(&mut connection, b"CLUSTER SLOTS\r\n", "-LOADING this node has no ring yet").await;
}

fn acl_file(text: &str) -> (tempfile::TempDir, Limits) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("users.acl");
    std::fs::write(&path, text).unwrap();
    let redis = annulus_node::config::RedisSettings { acl_file: Some(path), flush_allowed: false };
    (directory, Limits { redis, ..Limits::default() })
}

#[tokio::test]
async fn with_a_file_of_users_nobody_gets_in_without_a_password() {
    let (_directory, limits) = acl_file("user app on >secret ~app:* +@all\nuser reader on >look allkeys +@read\n");
    let (served, mut connection) = connect(limits).await;
    const NOAUTH: &str = "-NOAUTH Authentication required.\r\n";
    exchange(&mut connection, b"GET a\r\n", NOAUTH).await;
    exchange(&mut connection, b"INFO\r\n", NOAUTH).await;
    exchange(&mut connection, b"HELLO 3\r\n", "-NOAUTH HELLO must be called").await;
    let mut connection = TcpStream::connect(served.address).await.unwrap();
    const WRONG: &str = "-WRONGPASS invalid username-password pair or user is disabled.\r\n";
    exchange(&mut connection, b"AUTH secret\r\n", WRONG).await;
    exchange(&mut connection, b"AUTH app wrong\r\n", WRONG).await;
    exchange(&mut connection, b"HELLO 2 AUTH app wrong\r\n", WRONG).await;
    exchange(&mut connection, b"AUTH app secret\r\nSET app:1 x\r\n", "+OK\r\n+OK\r\n").await;
    exchange(&mut connection, b"ACL WHOAMI\r\n", "$3\r\napp\r\n").await;
    exchange(&mut connection, b"GET other\r\n", "-NOPERM No permissions to access a key\r\n").await;
    exchange(&mut connection, b"AUTH reader look\r\nGET other\r\n", "+OK\r\n$-1\r\n").await;
    let refused = "-NOPERM User reader has no permissions to run the 'set' command\r\n";
    exchange(&mut connection, b"SET app:1 y\r\n", refused).await;
    exchange(&mut connection, b"RESET\r\nGET a\r\n", &format!("+RESET\r\n{NOAUTH}")).await;
}

#[tokio::test]
async fn who_has_not_said_who_they_are_can_send_little() {
    let (_directory, limits) = acl_file("user app on >secret allkeys +@all\n");
    let (served, mut connection) = connect(limits).await;
    let expected = "-ERR Protocol error: unauthenticated multibulk length\r\n";
    exchange(&mut connection, b"*11\r\n", expected).await;
    assert_eq!(connection.read(&mut [0; 16]).await.unwrap_or(0), 0);
    let mut connection = TcpStream::connect(served.address).await.unwrap();
    let expected = "-ERR Protocol error: unauthenticated bulk length\r\n";
    exchange(&mut connection, b"*2\r\n$4\r\nAUTH\r\n$16385\r\n", expected).await;
    assert_eq!(connection.read(&mut [0; 16]).await.unwrap_or(0), 0);
    let mut connection = TcpStream::connect(served.address).await.unwrap();
    let mut large = b"AUTH app secret\r\n*3\r\n$3\r\nSET\r\n$1\r\na\r\n$20000\r\n".to_vec();
    large.extend(vec![b'x'; 20_000]);
    large.extend(b"\r\n");
    exchange(&mut connection, &large, "+OK\r\n+OK\r\n").await;
}

/// Whether the other side ends the connection within a few seconds; what it sends until then is read.
async fn is_ended(connection: &mut TcpStream) -> bool {
    let ended = async { while connection.read(&mut [0; 4096]).await.is_ok_and(|bytes| bytes > 0) {} };
    tokio::time::timeout(Duration::from_secs(5), ended).await.is_ok()
}

#[tokio::test]
async fn who_does_not_say_who_they_are_is_ended_and_who_has_may_be_idle() {
    let (_directory, mut limits) = acl_file("user app on >secret allkeys +@all\n");
    limits.stalled_client_timeout = Duration::from_millis(300);
    let (served, mut silent) = connect(limits).await;
    let mut known = TcpStream::connect(served.address).await.unwrap();
    exchange(&mut known, b"AUTH app secret\r\n", "+OK\r\n").await;
    assert!(is_ended(&mut silent).await);
    let mut knocking = TcpStream::connect(served.address).await.unwrap();
    for _ in 0..50 {
        let _ = knocking.write_all(b"PING\r\n").await;
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert!(is_ended(&mut knocking).await, "commands that are refused are no progress");
    exchange(&mut known, b"PING\r\n", "+PONG\r\n").await;
}

#[tokio::test]
async fn a_request_that_drips_in_ends_the_connection() {
    let limits = Limits { stalled_client_timeout: Duration::from_millis(300), ..Limits::default() };
    let (_served, mut connection) = connect(limits).await;
    exchange(&mut connection, b"PING\r\n", "+PONG\r\n").await;
    tokio::time::sleep(Duration::from_millis(600)).await;
    exchange(&mut connection, b"PING\r\n", "+PONG\r\n").await;
    connection.write_all(b"*3\r\n$3\r\nSET\r\n$1\r\na\r\n$1000\r\n").await.unwrap();
    let (mut reading, mut writing) = connection.into_split();
    let dripping = tokio::spawn(async move {
        while writing.write_all(b"x").await.is_ok() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    });
    let read = tokio::time::timeout(Duration::from_secs(5), reading.read(&mut [0; 16])).await;
    assert!(matches!(read, Ok(Ok(0) | Err(_))), "{read:?}");
    dripping.abort();
}

#[tokio::test]
async fn a_request_that_takes_long_but_comes_in_is_carried_out() {
    let limits = Limits { stalled_client_timeout: Duration::from_millis(500), ..Limits::default() };
    let (_served, mut connection) = connect(limits).await;
    connection.write_all(b"*3\r\n$3\r\nSET\r\n$1\r\na\r\n$400000\r\n").await.unwrap();
    for _ in 0..20 {
        connection.write_all(&[b'x'; 20_000]).await.unwrap();
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    exchange(&mut connection, b"\r\nSTRLEN a\r\n", "+OK\r\n:400000\r\n").await;
}

#[tokio::test]
async fn who_does_not_take_replies_is_ended() {
    let limits = Limits {
        stalled_client_timeout: Duration::from_millis(300),
        connection_reply_bytes_max: 4 << 20,
        ..Limits::default()
    };
    let (served, mut other) = connect(limits).await;
    let value = "x".repeat(1 << 20);
    exchange(&mut other, format!("*3\r\n$3\r\nSET\r\n$1\r\na\r\n$1048576\r\n{value}\r\n").as_bytes(), "+OK\r\n")
        .await;
    let mut deaf = TcpStream::connect(served.address).await.unwrap();
    deaf.write_all(&b"GET a\r\n".repeat(200)).await.unwrap();
    for attempt in 0.. {
        tokio::time::sleep(Duration::from_millis(100)).await;
        other.write_all(b"CLIENT LIST\r\n").await.unwrap();
        let mut list = [0; 4096];
        let bytes = other.read(&mut list).await.unwrap();
        let list = String::from_utf8_lossy(&list[..bytes]).into_owned();
        if list.matches("id=").count() == 1 {
            break;
        }
        assert!(attempt < 50, "it is still there: {list}");
    }
    // It was not slow, it took nothing: the rest of what was due is gone with it.
    let mut taken = 0;
    let mut buffer = vec![0; 1 << 16];
    while let Ok(bytes @ 1..) = deaf.read(&mut buffer).await {
        taken += bytes;
    }
    assert!(taken < 100 << 20, "{taken}");
}

#[tokio::test]
async fn a_changed_file_of_users_is_read_and_a_damaged_one_is_not() {
    let (directory, limits) = acl_file("user app on >old allkeys +@all\n");
    let (_served, mut connection) = connect(limits).await;
    let path = directory.path().join("users.acl");
    let write = |text: &str, seconds: u64| {
        std::fs::write(&path, text).unwrap();
        let changed = std::time::SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
        std::fs::File::options().write(true).open(&path).unwrap().set_modified(changed).unwrap();
    };
    write("user app on >new allkeys +@all\n", 1);
    exchange(&mut connection, b"AUTH app old\r\nAUTH app new\r\n", "-WRONGPASS").await;
    exchange(&mut connection, b"", " invalid username-password pair or user is disabled.\r\n+OK\r\n").await;
    write("user app on nonsense\n", 2);
    exchange(&mut connection, b"AUTH app new\r\n", "+OK\r\n").await;
}

#[tokio::test]
async fn annulus_tells_what_redis_has_no_command_for() {
    let (served, mut connection) = connect(Limits::default()).await;
    let value = |text: &'static str, timestamp: u64| Value {
        timestamp: Hlc::from_wall(timestamp),
        expires_at_ms: None,
        payload: Payload::Bytes(text.into()),
    };
    served.store.put_blind(b"a", value("one", 10), 7);
    served.store.put_blind(b"a", value("two", 20), 8);
    let sibling = |text: &str, timestamp: &str| {
        format!(
            "*6\r\n$5\r\nvalue\r\n$3\r\n{text}\r\n$9\r\ntimestamp\r\n$4\r\n{timestamp}\r\n$13\r\nexpires-at-ms\r\n$-1\r\n"
        )
    };
    let expected = format!(
        "*6\r\n$4\r\ntype\r\n$6\r\nstring\r\n$8\r\nsiblings\r\n*2\r\n{}{}$7\r\ncontext\r\n",
        sibling("one", "10.0"),
        sibling("two", "20.0")
    );
    exchange(&mut connection, b"ANNULUS GET a\r\n", &expected).await;
    let mut connection = TcpStream::connect(served.address).await.unwrap();
    let default = "*3\r\n$7\r\ndefault\r\n$7\r\ndefault\r\n$7\r\ndefault\r\n";
    exchange(&mut connection, b"ANNULUS CONSISTENCY\r\n", default).await;
    exchange(&mut connection, b"ANNULUS CONSISTENCY 1 3 STRICT\r\n", "+OK\r\n").await;
    exchange(&mut connection, b"ANNULUS CONSISTENCY\r\n", "*3\r\n:1\r\n:3\r\n$6\r\nstrict\r\n").await;
    exchange(&mut connection, b"SET a 1\r\nGET a\r\n", "+OK\r\n$1\r\n1\r\n").await;
    exchange(&mut connection, b"ANNULUS CONSISTENCY 0 3 STRICT\r\n", "-ERR value is not an integer").await;
    let mut connection = TcpStream::connect(served.address).await.unwrap();
    exchange(&mut connection, b"ANNULUS WHERE a\r\n", "*12\r\n$5\r\ntoken\r\n").await;
    let mut connection = TcpStream::connect(served.address).await.unwrap();
    exchange(&mut connection, b"ANNULUS RING\r\n", "*14\r\n$5\r\nepoch\r\n:7\r\n").await;
    let mut connection = TcpStream::connect(served.address).await.unwrap();
    exchange(&mut connection, b"ANNULUS GET\r\n", "-ERR wrong number of arguments for 'annulus|get'").await;
}

#[tokio::test]
async fn everything_is_deleted_only_where_that_is_allowed() {
    let redis = annulus_node::config::RedisSettings { acl_file: None, flush_allowed: true };
    let (_served, mut connection) = connect(Limits { redis, ..Limits::default() }).await;
    exchange(&mut connection, b"SET a 1\r\nSADD b 1\r\nFLUSHALL\r\n", "+OK\r\n:1\r\n+OK\r\n").await;
    exchange(&mut connection, b"DBSIZE\r\nEXISTS a b\r\n", ":0\r\n:0\r\n").await;
}

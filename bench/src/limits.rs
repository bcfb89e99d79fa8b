//! What bounds any store on this machine: flushes of the disk, and round trips by TCP and by gRPC.

use crate::process::{own_processor_time, processor_time};
use crate::proto::echo::Payload;
use crate::proto::echo::echo_client::EchoClient;
use crate::proto::echo::echo_server::{Echo, EchoServer};
use crate::systems::Process;
use anyhow::Context;
use bytes::Bytes;
use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

/// Port of the echo by TCP; the one by gRPC is the next.
const PORT: u16 = 17701;
/// Bytes of what is echoed: a small request and its small answer.
const PAYLOAD_BYTES: usize = 64;
/// Bytes written between two flushes of the disk.
const FLUSHED_BYTES: usize = 4096;

/// Arguments of `limits`.
#[derive(clap::Args)]
pub struct Arguments {
    /// Clients, each waiting for its answer before it asks again.
    #[arg(long, default_value_t = 64)]
    clients: usize,
    /// Seconds of each measurement.
    #[arg(long, default_value_t = 5.0)]
    seconds: f64,
    /// Where to flush, on the disk to be measured; the system's place for temporary files if absent.
    #[arg(long)]
    directory: Option<PathBuf>,
    /// Be the server of the echoes, until killed.
    #[arg(long, hide = true)]
    serve: bool,
}

/// Measures and prints.
///
/// # Errors
/// When a file cannot be written or a connection made.
pub fn run(arguments: &Arguments) -> anyhow::Result<()> {
    // As a node of two processors: one thread.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    if arguments.serve {
        return runtime.block_on(serve());
    }
    let place = match &arguments.directory {
        Some(directory) => tempfile::tempdir_in(directory)?,
        None => tempfile::tempdir()?,
    };
    println!("{:.0} flushes of {FLUSHED_BYTES} bytes a second", flushes(place.path(), arguments.seconds)?);
    let mut command = Command::new(std::env::current_exe()?);
    let server = Process::start(command.args(["limits", "--serve"]), &place.path().join("server.log"))?;
    println!(
        "echo of {PAYLOAD_BYTES} bytes, {} clients, one thread a side: calls/s, CPU µs/call of the server, of the clients",
        arguments.clients
    );
    runtime.block_on(async {
        for way in [Way::Tcp, Way::Unary, Way::Stream] {
            let measured = echoes(arguments, way, server.pid()).await?;
            let [rate, of_server, of_clients] = measured;
            println!("  {:<12} {rate:>9.0} {of_server:>7.1} {of_clients:>7.1}", way.name());
        }
        anyhow::Ok(())
    })
}

/// Flushes a second, each behind a small write, one after the other.
fn flushes(directory: &Path, seconds: f64) -> anyhow::Result<f64> {
    let mut file = File::create(directory.join("flushed"))?;
    let (mut flushes, began) = (0_u64, Instant::now());
    while began.elapsed().as_secs_f64() < seconds {
        file.write_all(&[7; FLUSHED_BYTES])?;
        file.sync_data()?;
        flushes += 1;
    }
    Ok(flushes as f64 / began.elapsed().as_secs_f64())
}

/// How a call is made.
#[derive(Clone, Copy)]
enum Way {
    /// Bytes over a connection of its own.
    Tcp,
    /// A unary gRPC call, all over one HTTP/2 connection.
    Unary,
    /// A message of a gRPC stream of its own, all over one HTTP/2 connection.
    Stream,
}

impl Way {
    fn name(self) -> &'static str {
        match self {
            Self::Tcp => "TCP",
            Self::Unary => "gRPC unary",
            Self::Stream => "gRPC stream",
        }
    }
}

/// Calls a second, and CPU microseconds a call of the server and of the clients.
async fn echoes(arguments: &Arguments, way: Way, server: u32) -> anyhow::Result<[f64; 3]> {
    let (calls, stop) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
    let grpc = connected().await?;
    let clients: Vec<_> = (0..arguments.clients)
        .map(|_| {
            let (calls, stop, grpc) = (calls.clone(), stop.clone(), grpc.clone());
            tokio::spawn(async move {
                match way {
                    Way::Tcp => by_tcp(&calls, &stop).await,
                    Way::Unary => by_unary(grpc, &calls, &stop).await,
                    Way::Stream => by_stream(grpc, &calls, &stop).await,
                }
            })
        })
        .collect();
    tokio::time::sleep(Duration::from_millis(500)).await;
    let before = (calls.load(Relaxed), processor_time(&[server])?, own_processor_time()?, Instant::now());
    tokio::time::sleep(Duration::from_secs_f64(arguments.seconds)).await;
    let done = (calls.load(Relaxed) - before.0) as f64;
    let of_server = processor_time(&[server])?.saturating_sub(before.1).as_secs_f64();
    let of_clients = own_processor_time()?.saturating_sub(before.2).as_secs_f64();
    let rate = done / before.3.elapsed().as_secs_f64();
    stop.store(true, Relaxed);
    for client in clients {
        client.await??;
    }
    Ok([rate, of_server * 1e6 / done.max(1.0), of_clients * 1e6 / done.max(1.0)])
}

async fn connected() -> anyhow::Result<EchoClient<tonic::transport::Channel>> {
    let url = format!("http://127.0.0.1:{}", PORT + 1);
    for _ in 0..100 {
        if let Ok(client) = EchoClient::connect(url.clone()).await {
            return Ok(client);
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    anyhow::bail!("the server of the echoes does not answer")
}

async fn by_tcp(calls: &AtomicU64, stop: &AtomicBool) -> anyhow::Result<()> {
    let mut stream = TcpStream::connect(("127.0.0.1", PORT)).await?;
    stream.set_nodelay(true)?;
    let mut payload = [7; PAYLOAD_BYTES];
    while !stop.load(Relaxed) {
        stream.write_all(&payload).await?;
        stream.read_exact(&mut payload).await?;
        calls.fetch_add(1, Relaxed);
    }
    Ok(())
}

fn payload() -> Payload {
    Payload { bytes: Bytes::from_static(&[7; PAYLOAD_BYTES]) }
}

async fn by_unary(
    mut client: EchoClient<tonic::transport::Channel>,
    calls: &AtomicU64,
    stop: &AtomicBool,
) -> anyhow::Result<()> {
    while !stop.load(Relaxed) {
        client.call(payload()).await?;
        calls.fetch_add(1, Relaxed);
    }
    Ok(())
}

async fn by_stream(
    mut client: EchoClient<tonic::transport::Channel>,
    calls: &AtomicU64,
    stop: &AtomicBool,
) -> anyhow::Result<()> {
    let (requests, queue) = tokio::sync::mpsc::channel(1);
    requests.send(payload()).await?;
    let mut answers = client.stream(ReceiverStream::new(queue)).await?.into_inner();
    while !stop.load(Relaxed) {
        answers.message().await?.context("the stream has ended")?;
        calls.fetch_add(1, Relaxed);
        requests.send(payload()).await?;
    }
    Ok(())
}

struct Server;

#[tonic::async_trait]
impl Echo for Server {
    type StreamStream = Streaming<Payload>;

    async fn call(&self, request: Request<Payload>) -> Result<Response<Payload>, Status> {
        Ok(Response::new(request.into_inner()))
    }

    async fn stream(&self, request: Request<Streaming<Payload>>) -> Result<Response<Streaming<Payload>>, Status> {
        Ok(Response::new(request.into_inner()))
    }
}

async fn serve() -> anyhow::Result<()> {
    let listener = TcpListener::bind(("127.0.0.1", PORT)).await?;
    let grpc = tonic::transport::Server::builder()
        .tcp_nodelay(true)
        .add_service(EchoServer::new(Server))
        .serve(([127, 0, 0, 1], PORT + 1).into());
    tokio::spawn(grpc);
    loop {
        let (mut stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        tokio::spawn(async move {
            let mut payload = [0; PAYLOAD_BYTES];
            while stream.read_exact(&mut payload).await.is_ok() && stream.write_all(&payload).await.is_ok() {}
        });
    }
}

//! Cuts bulks from the channel and sends them, several at once.

use std::sync::Arc;
use std::time::Duration;

use axum::http::{Request, StatusCode};
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use serde::Deserialize;
use tokio::sync::{Semaphore, mpsc};
use tokio::time::{Instant, sleep, timeout, timeout_at};

use crate::document::Entry;

pub const CHANNEL_EVENTS: usize = 100_000;
type Http = Client<HttpConnector, Full<Bytes>>;

const BULK_EVENTS: usize = 1_000;
const WORKERS: usize = 10;
const TIMEOUT: Duration = Duration::from_secs(30);
const RETRY_AFTER: Duration = Duration::from_millis(500);

pub struct Settings {
    url: String,
    interval: Duration,
}

impl Settings {
    pub fn new(sink: &str, interval_s: &str) -> Self {
        Self {
            url: format!("{sink}/_bulk?filter_path=errors,items.*.status"),
            interval: Duration::from_secs_f64(interval_s.parse().expect("the interval is a number of seconds")),
        }
    }
}

#[derive(Deserialize)]
struct Answer {
    errors: bool,
    #[serde(default)]
    items: Vec<Item>,
}

#[derive(Deserialize)]
struct Item {
    create: Outcome,
}

#[derive(Deserialize)]
struct Outcome {
    status: u16,
}

/// Runs for as long as the server.
pub async fn deliver(mut events: mpsc::Receiver<Entry>, settings: Settings) {
    let settings = Arc::new(settings);
    let client: Http = Client::builder(TokioExecutor::new()).build_http();
    let workers = Arc::new(Semaphore::new(WORKERS));
    loop {
        let bulk = next_bulk(&mut events, settings.interval).await;
        let worker = workers.clone().acquire_owned().await.expect("it is never closed");
        let (client, settings) = (client.clone(), settings.clone());
        tokio::spawn(async move {
            send(&client, &settings.url, bulk).await;
            drop(worker);
        });
    }
}

/// Takes events until a bulk is full, or the interval is over after the first.
async fn next_bulk(events: &mut mpsc::Receiver<Entry>, interval: Duration) -> Vec<Entry> {
    let mut bulk = Vec::with_capacity(BULK_EVENTS);
    events.recv_many(&mut bulk, BULK_EVENTS).await;
    let until = Instant::now() + interval;
    while bulk.len() < BULK_EVENTS {
        let room = BULK_EVENTS - bulk.len();
        if timeout_at(until, events.recv_many(&mut bulk, room)).await.is_err() {
            break;
        }
    }
    bulk
}

/// Sends a bulk until all its events are taken or refused for good.
async fn send(client: &Http, url: &str, mut bulk: Vec<Entry>) {
    loop {
        let mut body = Vec::with_capacity(bulk.iter().map(|entry| entry.lines.len()).sum());
        for entry in &bulk {
            body.extend_from_slice(&entry.lines);
        }
        match timeout(TIMEOUT, post(client, url, body.into())).await.unwrap_or(None) {
            Some(answer) if !answer.errors => return,
            Some(answer) => {
                let mut items = answer.items.iter();
                bulk.retain(|_| {
                    items
                        .next()
                        .is_none_or(|item| matches!(item.create.status, 429 | 500..))
                });
                if bulk.is_empty() {
                    return;
                }
            }
            None => (),
        }
        sleep(RETRY_AFTER).await;
    }
}

async fn post(client: &Http, url: &str, body: Bytes) -> Option<Answer> {
    let request = Request::post(url)
        .header("Content-Type", "application/x-ndjson")
        .body(Full::new(body))
        .ok()?;
    let response = client
        .request(request)
        .await
        .ok()
        .filter(|response| response.status() == StatusCode::OK)?;
    serde_json::from_slice(&response.into_body().collect().await.ok()?.to_bytes()).ok()
}

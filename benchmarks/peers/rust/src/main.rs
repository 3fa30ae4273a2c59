//! A collector in Rust, to compare Forebay with: a 200 means that the event is in a channel in memory.
//!
//! It checks tokens, decodes and validates events, and makes documents by the same rules. What Forebay has beyond that
//! (a spool, dead letters, limits of connections, metrics) it has not. It is made for one core: one thread runs all.

mod delivery;
mod document;
mod event;
mod token;

use std::sync::Arc;

use axum::Router;
use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use serde_json::value::RawValue;
use tokio::sync::mpsc;

use delivery::{CHANNEL_EVENTS, Settings};
use document::{Entry, Sender};
use event::Event;
use token::Tokens;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const BODY_BYTES_MAX: usize = 10_000_000;
const BATCH_EVENTS_MAX: usize = 1_000;
const JSON: (header::HeaderName, &str) = (header::CONTENT_TYPE, "application/json");

struct Collector {
    tokens: Tokens,
    channel: mpsc::Sender<Entry>,
    environment: String,
}

/// An answer that is no 200.
struct Refusal(StatusCode, String);

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let Refusal(status, detail) = self;
        let body =
            serde_json::json!({ "title": status.canonical_reason(), "status": status.as_u16(), "detail": detail });
        (
            status,
            [(header::CONTENT_TYPE, "application/problem+json")],
            body.to_string(),
        )
            .into_response()
    }
}

fn full<T>(_: T) -> Refusal {
    Refusal(StatusCode::SERVICE_UNAVAILABLE, "the channel is full".to_owned())
}

impl Collector {
    /// Checks what is the same for both addresses, and gathers what the documents of a request share.
    fn sender(&self, headers: &HeaderMap) -> Result<Sender<'_>, Refusal> {
        let user = self
            .tokens
            .verify(headers)
            .map_err(|detail| Refusal(StatusCode::UNAUTHORIZED, detail))?;
        let media_type = headers
            .get(header::CONTENT_TYPE)
            .map_or(b"".as_slice(), |value| value.as_bytes());
        if !media_type.starts_with(b"application/json") {
            return Err(Refusal(
                StatusCode::UNSUPPORTED_MEDIA_TYPE,
                "the body is not JSON".to_owned(),
            ));
        }
        Ok(Sender::new(user, headers, &self.environment))
    }
}

async fn take_event(
    State(collector): State<Arc<Collector>>,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Response, Refusal> {
    let sender = collector.sender(&headers)?;
    let bad = |detail: String| Refusal(StatusCode::BAD_REQUEST, detail);
    let event = event::decode(&body).and_then(Event::validated).map_err(bad)?;
    let entry = sender.entry(&event);
    let answer = format!(r#"{{"status":"created","log_id":{}}}"#, entry.log_id);
    collector.channel.try_send(entry).map_err(full)?;
    Ok(([JSON], answer).into_response())
}

async fn take_batch(
    State(collector): State<Arc<Collector>>,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Response, Refusal> {
    let sender = collector.sender(&headers)?;
    let bad = |detail: String| Refusal(StatusCode::BAD_REQUEST, detail);
    let made = entries(&body, &sender).map_err(bad)?;
    if made.len() > BATCH_EVENTS_MAX {
        return Err(Refusal(StatusCode::PAYLOAD_TOO_LARGE, "too many events".to_owned()));
    }
    let accepted = made.iter().filter(|each| each.is_ok()).count();
    let answer = batch_answer(&made, accepted);
    let permits = collector.channel.try_reserve_many(accepted).map_err(full)?;
    for (permit, entry) in permits.zip(made.into_iter().flatten()) {
        permit.send(entry);
    }
    Ok(([JSON], answer).into_response())
}

/// Decodes a batch in one go; only if an event in it is wrong, each by itself.
fn entries(body: &[u8], sender: &Sender) -> Result<Vec<Result<Entry, String>>, String> {
    let entry = |event: Event| event.validated().map(|event| sender.entry(&event));
    if let Ok(events) = serde_json::from_slice::<Vec<Event>>(body) {
        return Ok(events.into_iter().map(entry).collect());
    }
    let raw: Vec<&RawValue> = serde_json::from_slice(body).map_err(|error| error.to_string())?;
    Ok(raw
        .iter()
        .map(|each| event::decode(each.get().as_bytes()).and_then(entry))
        .collect())
}

fn batch_answer(made: &[Result<Entry, String>], accepted: usize) -> String {
    use std::fmt::Write;
    let mut answer = String::with_capacity(64 + made.len() * 96);
    let rejected = made.len() - accepted;
    let _ = write!(answer, r#"{{"accepted":{accepted},"rejected":{rejected},"results":["#);
    for (index, each) in made.iter().enumerate() {
        let comma = if index == 0 { "" } else { "," };
        let _ = match each {
            Ok(entry) => write!(
                answer,
                r#"{comma}{{"index":{index},"log_id":{},"status":"created"}}"#,
                entry.log_id
            ),
            Err(detail) => write!(
                answer,
                r#"{comma}{{"index":{index},"status":"rejected","error":{{"detail":{}}}}}"#,
                serde_json::Value::from(detail.as_str())
            ),
        };
    }
    answer.push_str("]}");
    answer
}

fn setting(name: &str) -> String {
    std::env::var(name).unwrap_or_else(|_| panic!("{name} is not set"))
}

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let (channel, events) = mpsc::channel(CHANNEL_EVENTS);
    let settings = Settings::new(&setting("OPEN_SEARCH_DNS"), &setting("FOREBAY_BULK_INTERVAL_S"));
    tokio::spawn(delivery::deliver(events, settings));
    let collector = Collector {
        tokens: Tokens::new(&setting("JWT_SECRET")),
        channel,
        environment: setting("SERVER_ENVIRONMENT"),
    };
    let app = Router::new()
        .route("/events", post(take_event))
        .route("/events/batch", post(take_batch))
        .route("/ping", get(async || "pong"))
        .layer(DefaultBodyLimit::max(BODY_BYTES_MAX))
        .with_state(Arc::new(collector));
    let address = format!("127.0.0.1:{}", setting("SERVER_PORT"));
    let listener = tokio::net::TcpListener::bind(address).await.expect("the port is free");
    let listener = axum::serve::ListenerExt::tap_io(listener, |stream| {
        let _ = stream.set_nodelay(true);
    });
    axum::serve(listener, app)
        .await
        .expect("the server runs until it is ended");
}

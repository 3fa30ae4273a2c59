//! Makes the document of an event, with the action line that names its index and `_id`.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::io::Write;
use std::sync::Arc;

use axum::http::HeaderMap;
use chrono::{DateTime, Datelike, SecondsFormat, TimeDelta, Utc};
use serde::Serialize;
use serde_json::value::RawValue;

use crate::event::Event;

const UNCORRECTED_DAYS_MAX: i64 = 7;
const SENDER_HEADERS: [(&str, &str); 4] = [
    ("device-uuid", "device_uuid"),
    ("app-version", "app_version"),
    ("os-version", "os_version"),
    ("user-agent", "user_agent"),
];

/// The two lines of a bulk request that stand for one event.
pub struct Entry {
    pub lines: Vec<u8>,
    /// As JSON, for the answer.
    pub log_id: String,
}

/// What all documents of a request share.
pub struct Sender<'a> {
    shared: Vec<u8>,
    now: DateTime<Utc>,
    now_text: String,
    environment: &'a str,
}

#[derive(Serialize)]
struct Info<'a> {
    page: &'a str,
    event: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    label: &'a Option<Cow<'a, str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    target: &'a Option<Cow<'a, str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    section: &'a Option<Cow<'a, str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    param: Option<Param<'a>>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    extra: BTreeMap<&'a str, &'a RawValue>,
}

#[derive(Serialize)]
#[serde(untagged)]
enum Param<'a> {
    Object(&'a RawValue),
    Other { value: &'a RawValue },
}

impl<'a> Sender<'a> {
    pub fn new(user: Arc<str>, headers: &HeaderMap, environment: &'a str) -> Self {
        let now = Utc::now();
        let mut shared = Vec::with_capacity(256);
        shared.extend_from_slice(b",\"user_id\":");
        write_json(&mut shared, &*user);
        for (header, field) in SENDER_HEADERS {
            if let Some(Ok(value)) = headers.get(header).map(|value| std::str::from_utf8(value.as_bytes())) {
                let _ = write!(shared, ",\"{field}\":");
                write_json(&mut shared, value);
            }
        }
        Self {
            shared,
            now,
            now_text: time_text(now),
            environment,
        }
    }

    pub fn entry(&self, event: &Event) -> Entry {
        let given = event.log_id.as_deref();
        let log_id = serde_json::to_string(&given.map_or_else(|| uuid::Uuid::now_v7().to_string().into(), Cow::from))
            .expect("text is JSON");
        let happened = event.timestamp.map(|time| self.corrected(time, event.sent_at));
        let month = given.and_then(time_of_id).or(happened).unwrap_or(self.now);
        let mut lines = Vec::with_capacity(768);
        let _ = write!(
            lines,
            "{{\"create\":{{\"_index\":\"events_{}_{:04}-{:02}\",\"_id\":{log_id}}}}}\n{{\"@timestamp\":\"{}\",\"received_at\":\"{}\",\"log_id\":{log_id}",
            self.environment,
            month.year(),
            month.month(),
            happened.map_or(Cow::from(&self.now_text), |time| time_text(time).into()),
            self.now_text,
        );
        lines.extend_from_slice(&self.shared);
        lines.extend_from_slice(b",\"event_info\":");
        write_json(&mut lines, &info(event));
        lines.extend_from_slice(b"}\n");
        Entry { lines, log_id }
    }

    /// Corrects a time by the difference of the two clocks, unless that is too large to be believed.
    fn corrected(&self, time: DateTime<Utc>, sent_at: Option<DateTime<Utc>>) -> DateTime<Utc> {
        let difference = sent_at.map_or(TimeDelta::zero(), |sent| self.now - sent);
        if difference.abs() <= TimeDelta::days(UNCORRECTED_DAYS_MAX) {
            time + difference
        } else {
            time
        }
    }
}

fn info<'a>(event: &'a Event) -> Info<'a> {
    Info {
        page: &event.page,
        event: &event.event,
        label: &event.label,
        target: &event.target,
        section: &event.section,
        param: event.param.filter(|raw| raw.get() != "null").map(|raw| {
            if raw.get().starts_with('{') {
                Param::Object(raw)
            } else {
                Param::Other { value: raw }
            }
        }),
        extra: event.extra.iter().map(|(name, value)| (&**name, *value)).collect(),
    }
}

fn write_json<T: Serialize + ?Sized>(to: &mut Vec<u8>, value: &T) {
    serde_json::to_writer(to, value).expect("text and raw JSON are JSON");
}

fn time_text(time: DateTime<Utc>) -> String {
    time.to_rfc3339_opts(SecondsFormat::Micros, true)
}

/// Reads the time inside a UUIDv7.
fn time_of_id(log_id: &str) -> Option<DateTime<Utc>> {
    let id = uuid::Uuid::try_parse(log_id)
        .ok()
        .filter(|id| id.get_version_num() == 7)?;
    DateTime::from_timestamp_millis((id.as_u128() >> 80) as i64)
}

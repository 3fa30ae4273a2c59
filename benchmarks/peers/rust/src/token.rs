//! The check of a token. Those that were verified are remembered until they end, as in Forebay.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::{SystemTime, UNIX_EPOCH};

use axum::http::{HeaderMap, header};
use jsonwebtoken::{Algorithm, DecodingKey, Validation, decode};
use serde::Deserialize;

const REMEMBERED_MAX: usize = 10_000;
const LEEWAY_S: u64 = 30;

#[derive(Deserialize)]
struct Claims {
    sub: String,
    exp: u64,
    #[serde(default)]
    scope: Option<String>,
}

struct Verified {
    user: Arc<str>,
    until: u64,
}

pub struct Tokens {
    key: DecodingKey,
    validation: Validation,
    remembered: Mutex<HashMap<Box<[u8]>, Verified>>,
}

impl Tokens {
    pub fn new(secret: &str) -> Self {
        let mut validation = Validation::new(Algorithm::HS256);
        validation.set_required_spec_claims(&["exp", "sub"]);
        validation.leeway = LEEWAY_S;
        validation.validate_nbf = true;
        Self {
            key: DecodingKey::from_secret(secret.as_bytes()),
            validation,
            remembered: Mutex::default(),
        }
    }

    /// Returns the user that a request's token names.
    pub fn verify(&self, headers: &HeaderMap) -> Result<Arc<str>, String> {
        let line = headers
            .get(header::AUTHORIZATION)
            .ok_or("the token is missing")?
            .as_bytes();
        let token = line.strip_prefix(b"Bearer ").ok_or("the token is missing")?;
        let mut remembered = self.remembered.lock().expect("no thread panics with the lock");
        let now = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .expect("it is after 1970")
            .as_secs();
        match remembered.get(token) {
            Some(known) if now < known.until => return Ok(known.user.clone()),
            Some(_) => drop(remembered.remove(token)),
            None => (),
        }
        let claims = decode::<Claims>(token, &self.key, &self.validation)
            .map_err(|error| error.to_string())?
            .claims;
        if claims
            .scope
            .is_some_and(|scopes| !scopes.split(' ').any(|scope| scope == "events:write"))
        {
            return Err("the token's scope is not enough".to_owned());
        }
        if remembered.len() >= REMEMBERED_MAX {
            remembered.clear();
        }
        let user: Arc<str> = claims.sub.into();
        remembered.insert(
            token.into(),
            Verified {
                user: user.clone(),
                until: claims.exp + LEEWAY_S,
            },
        );
        Ok(user)
    }
}

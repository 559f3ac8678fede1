//! A secret as a header.

use secrecy::{ExposeSecret as _, SecretString};
use ureq::http::HeaderValue;

/// A secret has characters that no header can carry. The text does not show it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the secret has characters that cannot be sent in a header")]
pub struct SecretInvalid;

/// The value of an `Authorization` header, marked as sensitive. White space around the secret is left out.
///
/// # Errors
/// [`SecretInvalid`] if a line end or another control character is in it.
pub fn bearer(secret: &SecretString) -> Result<HeaderValue, SecretInvalid> {
    sensitive(&format!("Bearer {}", secret.expose_secret().trim()))
}

/// The secret alone as the value of a header, such as Azure's `api-key`, marked as sensitive. White space around it is
/// left out.
///
/// # Errors
/// [`SecretInvalid`] if a line end or another control character is in it.
pub fn bare(secret: &SecretString) -> Result<HeaderValue, SecretInvalid> {
    sensitive(secret.expose_secret().trim())
}

fn sensitive(value: &str) -> Result<HeaderValue, SecretInvalid> {
    let mut value = HeaderValue::from_str(value).map_err(|_| SecretInvalid)?;
    value.set_sensitive(true);
    Ok(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_header_is_not_shown() {
        let header = bearer(&SecretString::from(" hf_abc\n")).unwrap();
        assert_eq!(header.to_str().unwrap(), "Bearer hf_abc");
        assert_eq!(format!("{header:?}"), "Sensitive");
        let header = bare(&SecretString::from(" hf_abc\n")).unwrap();
        assert_eq!(header.to_str().unwrap(), "hf_abc");
        assert_eq!(format!("{header:?}"), "Sensitive");
        for header in [bearer, bare] {
            let error = header(&SecretString::from("hf_\nabc")).unwrap_err();
            assert!(!format!("{error} {error:?}").contains("abc"));
        }
    }
}

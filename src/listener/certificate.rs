//! The name in a client's certificate that is its login name.
//!
//! # Not here
//! Whether the certificate is to be believed: rustls has verified it before anybody looks here.

use x509_cert::Certificate;
use x509_cert::der::asn1::{Ia5StringRef, PrintableStringRef, TeletexStringRef, Utf8StringRef};
use x509_cert::der::oid::ObjectIdentifier;
use x509_cert::der::{Any, Decode};
use x509_cert::ext::pkix::SubjectAltName;
use x509_cert::ext::pkix::name::GeneralName;

use crate::config::CertificateName;

/// The attribute CN.
const COMMON_NAME: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.4.3");

/// The name of that kind in a certificate (DER). `None` if there is none, if it is no text, if it holds control characters, or if there
/// are several CN, of which nobody could say which counts.
pub fn login_of(der: &[u8], kind: CertificateName) -> Option<Box<str>> {
    let certificate = Certificate::from_der(der).ok()?;
    let certificate = certificate.tbs_certificate();
    let name = match kind {
        CertificateName::Subject => certificate.subject().to_string(),
        CertificateName::CommonName => {
            let mut names = certificate
                .subject()
                .iter()
                .filter(|part| part.oid == COMMON_NAME);
            let name = text(&names.next()?.value)?;
            match names.next() {
                Some(_) => return None,
                None => name,
            }
        }
        CertificateName::Dns | CertificateName::Email | CertificateName::Uri => {
            let (_, names) = certificate.get_extension::<SubjectAltName>().ok()??;
            names
                .0
                .iter()
                .find_map(|name| alternative(name, kind))?
                .to_owned()
        }
    };
    let fits = !name.is_empty() && !name.chars().any(char::is_control);
    fits.then(|| name.into_boxed_str())
}

fn alternative(name: &GeneralName, kind: CertificateName) -> Option<&str> {
    match (kind, name) {
        (CertificateName::Dns, GeneralName::DnsName(name))
        | (CertificateName::Email, GeneralName::Rfc822Name(name))
        | (CertificateName::Uri, GeneralName::UniformResourceIdentifier(name)) => Some(name.as_str()),
        _ => None,
    }
}

/// The text of an attribute, in whichever of the forms that names have today.
fn text(value: &Any) -> Option<String> {
    let text = value
        .decode_as::<Utf8StringRef<'_>>()
        .map(|text| text.as_str().to_owned())
        .or_else(|_| {
            value
                .decode_as::<PrintableStringRef<'_>>()
                .map(|text| text.as_str().to_owned())
        })
        .or_else(|_| {
            value
                .decode_as::<Ia5StringRef<'_>>()
                .map(|text| text.as_str().to_owned())
        })
        .or_else(|_| {
            value
                .decode_as::<TeletexStringRef<'_>>()
                .map(|text| text.as_str().to_owned())
        });
    text.ok()
}

#[cfg(test)]
mod tests;

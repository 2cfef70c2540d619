use rcgen::string::Ia5String;
use rcgen::{CertificateParams, DnType, DnValue, KeyPair, SanType};

use super::*;

fn certificate(names: &[(DnType, &str)], alternatives: Vec<SanType>) -> Vec<u8> {
    let mut params = CertificateParams::default();
    params.distinguished_name = rcgen::DistinguishedName::new();
    for (kind, name) in names {
        params
            .distinguished_name
            .push(kind.clone(), DnValue::Utf8String((*name).to_owned()));
    }
    params.subject_alt_names = alternatives;
    let key = KeyPair::generate().expect("a key can be made");
    params.self_signed(&key).expect("it can be signed").der().to_vec()
}

#[test]
fn each_kind_of_name_is_found() {
    let text = |text: &str| Ia5String::try_from(text).expect("it is ASCII");
    let der = certificate(
        &[
            (DnType::CountryName, "DE"),
            (DnType::OrganizationName, "Grün, Söhne"),
            (DnType::CommonName, "alice"),
        ],
        vec![
            SanType::Rfc822Name(text("alice@example.org")),
            SanType::DnsName(text("alice.example.org")),
            SanType::DnsName(text("second.example.org")),
            SanType::URI(text("spiffe://example.org/alice")),
        ],
    );
    for (kind, expected) in [
        (CertificateName::CommonName, "alice"),
        (CertificateName::Subject, "CN=alice,O=Grün\\, Söhne,C=DE"),
        (CertificateName::Dns, "alice.example.org"),
        (CertificateName::Email, "alice@example.org"),
        (CertificateName::Uri, "spiffe://example.org/alice"),
    ] {
        assert_eq!(login_of(&der, kind).as_deref(), Some(expected), "{kind:?}");
    }
}

#[test]
fn what_is_no_clear_name_is_none() {
    let bare = certificate(&[(DnType::OrganizationName, "o")], Vec::new());
    for kind in CertificateName::ALL {
        let expected = (kind == CertificateName::Subject).then_some("O=o");
        assert_eq!(login_of(&bare, kind).as_deref(), expected, "{kind:?}");
    }
    let common_name =
        |names: &[(DnType, &str)]| login_of(&certificate(names, Vec::new()), CertificateName::CommonName);
    let more = DnType::CustomDnType(vec![2, 5, 4, 3]);
    assert_eq!(
        common_name(&[(DnType::CommonName, "a"), (more, "b")]),
        None,
        "two"
    );
    assert_eq!(
        common_name(&[(DnType::CommonName, "a\nb")]),
        None,
        "a control character"
    );
    assert_eq!(common_name(&[(DnType::CommonName, "")]), None, "empty");
    assert_eq!(login_of(b"nonsense", CertificateName::Subject), None);
    assert_eq!(
        login_of(&certificate(&[], Vec::new()), CertificateName::Subject),
        None
    );
}

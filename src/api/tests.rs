use proptest::prelude::*;

use super::*;

#[test]
fn names_survive_a_path() {
    let cases = [
        ("orders", "orders"),
        ("a b", "a%20b"),
        ("a/b?c#d%", "a%2Fb%3Fc%23d%25"),
        ("\"'\\", "%22%27%5C"),
        ("\t\u{7f}", "%09%7F"),
        ("ü", "%C3%BC"),
        ("..", ".."),
    ];
    for (name, encoded) in cases {
        assert_eq!(percent_encode(name), encoded);
        assert_eq!(percent_decode(encoded).as_deref(), Some(name));
    }
    assert_eq!(percent_decode("%c3%bc").as_deref(), Some("ü"));
}

#[test]
fn what_is_not_encoded_well_is_nothing() {
    for encoded in ["%", "%4", "%zz", "%+1", "%ff", "%C3", "é%"] {
        assert_eq!(percent_decode(encoded), None, "{encoded}");
    }
}

proptest! {
    #[test]
    fn every_name_survives(name in any::<String>()) {
        prop_assert_eq!(percent_decode(&percent_encode(&name)), Some(name));
    }
}

#[test]
fn an_unknown_field_of_a_request_is_refused() {
    assert!(serde_json::from_str::<Selection>("{\"headers\":[]}").is_err());
    assert!(serde_json::from_str::<Transfer>("{\"too\":\"b\"}").is_err());
    assert!(serde_json::from_str::<Delete>("{\"limit\":1}").is_err());
    assert!(serde_json::from_str::<Plain>("{\"force\":true}").is_err());
}

#[test]
fn what_is_left_out_of_a_request_has_its_default() {
    assert_eq!(
        serde_json::from_str::<Selection>("{}").ok(),
        Some(Selection::default())
    );
    let transfer = serde_json::from_str::<Transfer>("{\"to\":\"b\",\"limit\":3}").expect("it is whole");
    assert_eq!((transfer.to.as_str(), transfer.limit), ("b", Some(3)));
}

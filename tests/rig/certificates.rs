//! Certificates made for a test.

use std::fs;
use std::path::PathBuf;

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose,
};

/// Who makes them.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    certificate: rcgen::Certificate,
}

impl Authority {
    pub fn new() -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        params.distinguished_name.push(DnType::CommonName, "an authority");
        let certificate = params.self_signed(&key).unwrap();
        Self {
            issuer: Issuer::new(params, key),
            certificate,
        }
    }

    pub fn pem(&self) -> String {
        self.certificate.pem()
    }

    /// That of a server, and its key, as PEM.
    pub fn server(&self, name: &str) -> (String, String) {
        self.sign(name, ExtendedKeyUsagePurpose::ServerAuth)
    }

    /// That of a client, and its key, as PEM.
    pub fn client(&self, name: &str) -> (String, String) {
        self.sign(name, ExtendedKeyUsagePurpose::ClientAuth)
    }

    fn sign(&self, name: &str, purpose: ExtendedKeyUsagePurpose) -> (String, String) {
        let key = KeyPair::generate().unwrap();
        let names = vec!["localhost".to_owned(), "127.0.0.1".to_owned()];
        let mut params = CertificateParams::new(names).unwrap();
        params.distinguished_name.push(DnType::CommonName, name);
        params.extended_key_usages = vec![purpose];
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        (certificate.pem(), key.serialize_pem())
    }
}

/// A folder with a server's certificate, its key, and the authority behind both.
pub struct Folder {
    dir: tempfile::TempDir,
    pub authority: Authority,
}

impl Folder {
    pub fn new() -> Self {
        let folder = Self {
            dir: tempfile::tempdir().unwrap(),
            authority: Authority::new(),
        };
        folder.write("ca.pem", &folder.authority.pem());
        folder.renew("first");
        folder
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub fn write(&self, name: &str, text: &str) {
        fs::write(self.path(name), text).unwrap();
    }

    /// Another certificate of the same authority.
    pub fn renew(&self, name: &str) {
        let (certificate, key) = self.authority.server(name);
        self.write("server.pem", &certificate);
        self.write("server.key", &key);
    }
}

//! How many connections come from each address of the network: the 64 bits of an IPv6 address that a site is given count as one.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, PoisonError};

/// See the module's text.
#[derive(Debug, Default)]
pub(super) struct Neighbours(Mutex<BTreeMap<IpAddr, u64>>);

/// A connection that counts at its address until it is dropped.
#[derive(Debug)]
pub(super) struct Neighbour {
    among: Arc<Neighbours>,
    address: IpAddr,
}

impl Neighbours {
    /// One more from an address; `None` if there are as many already as there may be. 0 = any number.
    pub(super) fn enter(self: &Arc<Self>, address: IpAddr, count_max: usize) -> Option<Neighbour> {
        let address = site(address);
        // Nothing can panic while it is held.
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let count = counts.get(&address).copied().unwrap_or(0);
        if count_max > 0 && count >= count_max as u64 {
            return None;
        }
        counts.insert(address, count + 1);
        Some(Neighbour {
            among: Arc::clone(self),
            address,
        })
    }
}

impl Drop for Neighbour {
    fn drop(&mut self) {
        let mut counts = self.among.0.lock().unwrap_or_else(PoisonError::into_inner);
        match counts.get_mut(&self.address) {
            Some(count) if *count > 1 => *count -= 1,
            _ => {
                counts.remove(&self.address);
            }
        }
    }
}

fn site(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() & (!0 << 64)).into(),
        address => address,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_address_has_its_count_and_gives_it_back() {
        let neighbours = Arc::new(Neighbours::default());
        let enter = |address: &str| neighbours.enter(address.parse().unwrap(), 2);
        let first = enter("10.0.0.1");
        // The same address, as a socket for both families has it.
        let second = enter("::ffff:10.0.0.1");
        assert!(first.is_some() && second.is_some());
        assert!(enter("10.0.0.1").is_none());
        let other = enter("10.0.0.2");
        assert!(other.is_some());
        drop(second);
        assert!(enter("10.0.0.1").is_some());
        let site = [enter("2001:db8::1"), enter("2001:db8::2:0:0:1")];
        assert!(site.iter().all(Option::is_some));
        assert!(
            enter("2001:db8::3").is_none(),
            "one site has any number of addresses"
        );
        assert!(enter("2001:db8:0:1::1").is_some());
        drop((first, other, site));
        assert!(neighbours.0.lock().unwrap().is_empty());
        let many: Vec<_> = (0..5)
            .map(|_| neighbours.enter("10.0.0.1".parse().unwrap(), 0))
            .collect();
        assert!(many.iter().all(Option::is_some), "0 is no bound");
    }
}

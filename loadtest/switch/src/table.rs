//! Behind which port each address is.

use rustc_hash::FxHashMap;

/// Of Ethernet.
type Mac = [u8; 6];

/// More addresses than this are forgotten, all at once.
const ADDRESSES: usize = 4096;

/// Learns from what hosts send behind which port they are.
#[derive(Debug, Default)]
pub(crate) struct Table(FxHashMap<Mac, usize>);

impl Table {
    /// Notes that this frame came in at `port`; the only port it has to go to, if it is not for all.
    pub(crate) fn learn(&mut self, frame: &[u8], port: usize) -> Option<usize> {
        let (to, rest) = frame.split_first_chunk::<6>()?;
        let (from, _) = rest.split_first_chunk::<6>()?;
        if !is_group(from) {
            if self.0.len() >= ADDRESSES {
                self.0.clear();
            }
            self.0.insert(*from, port);
        }
        if is_group(to) { None } else { self.0.get(to).copied() }
    }
}

/// Multicast or broadcast.
fn is_group(mac: &Mac) -> bool {
    mac[0] & 1 == 1
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(to: u8, from: u8) -> Vec<u8> {
        let mac = |host: u8| [2, 0, 0, 0, 0, host];
        [&mac(to)[..], &mac(from), b"payload"].concat()
    }

    #[test]
    fn a_host_that_has_sent_is_known() {
        let mut table = Table::default();
        assert_eq!(table.learn(&frame(2, 1), 0), None);
        assert_eq!(table.learn(&frame(1, 2), 5), Some(0));
        assert_eq!(table.learn(&frame(2, 1), 0), Some(5));
        // It has moved.
        table.learn(&frame(1, 2), 3);
        assert_eq!(table.learn(&frame(2, 1), 0), Some(3));
    }

    #[test]
    fn broadcast_and_stumps_are_for_no_single_port() {
        let mut table = Table::default();
        table.learn(&[0xff; 12], 1);
        assert_eq!(table.learn(&[0xff; 12], 0), None);
        assert_eq!(table.learn(&[2; 11], 0), None);
    }

    #[test]
    fn the_table_stays_small() {
        let mut table = Table::default();
        for host in 0..2 * ADDRESSES as u32 {
            let [_, rest @ ..] = host.to_be_bytes();
            let from = [&[2, 0, 0][..], &rest].concat();
            table.learn(&[&[0xff; 6][..], &from].concat(), 0);
        }
        assert!(table.0.len() <= ADDRESSES);
    }
}

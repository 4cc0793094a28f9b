use std::{
    net::{Ipv4Addr, SocketAddr},
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::{net::UdpSocket, sync::mpsc, task::spawn_local, time::sleep_until};

/// So many datagrams of each direction arrive first: those of the handshake, and of calls that show how short the way is.
const UNHARMED: usize = 40;

/// What datagrams go through between two sockets, each of which sees the address of the way instead of the other's.
#[derive(Clone, Copy)]
pub(crate) struct Way {
    /// Of each direction.
    pub(crate) delay: Duration,
    /// Of so many datagrams one is lost, once the round trip is known.
    pub(crate) lost_of: usize,
}

impl Way {
    /// Where who dials has to send to.
    pub(crate) async fn to(self, listener: SocketAddr) -> SocketAddr {
        let bind = || async { Arc::new(UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap()) };
        let (near, far) = (bind().await, bind().await);
        far.connect(listener).await.unwrap();
        let address = near.local_addr().unwrap();
        spawn_local(async move {
            // It has one user: who sends the first datagram.
            let (_, dialler) = near.peek_from(&mut [0]).await.unwrap();
            near.connect(dialler).await.unwrap();
            spawn_local(self.carry(Arc::clone(&near), Arc::clone(&far)));
            self.carry(far, near).await;
        });
        address
    }

    async fn carry(self, from: Arc<UdpSocket>, to: Arc<UdpSocket>) {
        let (sender, mut on_the_way) = mpsc::unbounded_channel::<(Instant, Vec<u8>)>();
        spawn_local(async move {
            while let Some((due, datagram)) = on_the_way.recv().await {
                sleep_until(due.into()).await;
                // The other side may have gone.
                let _ = to.send(&datagram).await;
            }
        });
        let mut buffer = vec![0; 65_536];
        for number in 1.. {
            let Ok(length) = from.recv(&mut buffer).await else { return };
            if (number <= UNHARMED || number % self.lost_of != 0)
                && sender.send((Instant::now() + self.delay, buffer[..length].to_vec())).is_err()
            {
                return;
            }
        }
    }
}

use std::convert::Infallible;

use rand_core::TryRng;

/// fastrand for foca, which asks for a generator of the rand family.
#[derive(Clone, Debug)]
pub(super) struct Dice(pub(super) fastrand::Rng);

impl TryRng for Dice {
    type Error = Infallible;

    fn try_next_u32(&mut self) -> Result<u32, Infallible> {
        Ok(self.0.u32(..))
    }

    fn try_next_u64(&mut self) -> Result<u64, Infallible> {
        Ok(self.0.u64(..))
    }

    fn try_fill_bytes(&mut self, bytes: &mut [u8]) -> Result<(), Infallible> {
        self.0.fill(bytes);
        Ok(())
    }
}

//! Customers drawn by Zipf: the one of rank r with a weight of 1 / r^s.

/// The sums of all weights up to each rank.
pub(crate) struct Zipf(Vec<f64>);

impl Zipf {
    /// So many customers.
    pub(crate) fn new(customers: usize, exponent: f64) -> Self {
        let mut sum = 0.0;
        let sums = (1..=customers).map(|rank| {
            sum += (rank as f64).powf(-exponent);
            sum
        });
        Self(sums.collect())
    }

    /// A customer; which ones are popular has nothing to do with their order.
    pub(crate) fn draw(&self, chance: &mut fastrand::Rng) -> usize {
        let all = self.0.last().copied().unwrap_or_default();
        let at = chance.f64() * all;
        let rank = self.0.partition_point(|&sum| sum <= at).min(self.0.len() - 1);
        // A prime beyond any number of customers: every rank has a customer of its own.
        rank * 2_654_435_761 % self.0.len()
    }
}

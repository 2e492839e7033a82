"""GaussianMixture: a point, four goals, the quickest task on which modes can be lost."""

"""The platform acting on Kubernetes: work pools, RayJobs, rollouts, sweeping, and a doctor."""

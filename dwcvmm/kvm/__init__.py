"""KVM bindings: one method an ioctl, no policy."""

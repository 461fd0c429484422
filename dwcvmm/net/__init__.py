"""What a network device of a guest is connected to: passt, a tap interface, or a stream socket."""

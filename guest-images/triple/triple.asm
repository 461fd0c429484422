; A triple fault: an exception with an empty IDT.
%include "common.inc"
        print token
        lidt [rel empty]
        ud2
empty:  dw 0
        dq 0
token:  db "triple: about to fault", 10, 0
        library

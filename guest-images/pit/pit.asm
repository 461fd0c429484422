; The 8254's second half: channel 2 by its gate, BCD, and ports of a byte written as words.
%include "common.inc"
        mov al, 0               ; gate closed, speaker off
        out 0x61, al
        mov al, 0xb0            ; channel 2, mode 0, both bytes
        out 0x43, al
        mov al, 0xe8            ; 1000 ticks
        out 0x42, al
        mov al, 0x03
        out 0x42, al
        call count2
        mov r12d, eax
        call count2             ; a closed gate holds it
        cmp eax, r12d
        je .held
        finish 1
.held:  in al, 0x61
        test al, 0x20
        jz .low
        finish 2
.low:   mov al, 1
        out 0x61, al
        call count2             ; now it counts
        cmp eax, r12d
        jb .counts
        finish 3
.counts:
        mov al, 0
        out 0x61, al
        call count2
        mov r12d, eax
        call count2             ; and is held where it stands
        cmp eax, r12d
        je .on
        finish 4
.on:    mov al, 1
        out 0x61, al
.wait:  in al, 0x61             ; to its end
        test al, 0x20
        jz .wait

        mov al, 0xb5            ; mode 2 in BCD: 2000 ticks
        out 0x43, al
        mov al, 0
        out 0x42, al
        mov al, 0x20
        out 0x42, al
        mov r13d, 200
.bcd:   call count2
        mov ebx, eax
        and eax, 0x0f0f
        add eax, 0x0606
        test eax, 0x1010        ; a digit above 9
        jnz .no_bcd
        mov eax, ebx
        shr eax, 4
        and eax, 0x0f0f
        add eax, 0x0606
        test eax, 0x1010
        jnz .no_bcd
        cmp ebx, 0x2000
        ja .no_bcd
        dec r13d
        jnz .bcd

        mov ax, 0x5a40          ; the clock's index and its data in one word
        out 0x70, ax
        mov al, 0x40
        out 0x70, al
        in al, 0x71
        cmp al, 0x5a
        je .word
        finish 6
.word:  mov edx, COM1 + 4       ; modem control with the loop bit, line status, modem status, scratch
        mov eax, 0xa5000010
        out dx, eax
        in eax, dx
        shr eax, 24
        cmp al, 0xa5
        je .double
        finish 7
.double:
        mov al, 0
        out dx, al
        print token
        mov eax, 0              ; the debug exit by a double word
        out DEBUGEXIT, eax
        jmp $
.no_bcd:
        finish 5

; the count of channel 2 in eax
count2: mov al, 0x80
        out 0x43, al
        xor eax, eax
        in al, 0x42
        mov ah, al
        in al, 0x42
        xchg al, ah
        ret
token:  db "pit: OK", 10, 0
        library

;; Matrix product of float32 in C order: c (m, n) = a (m, k) times b (k, n). The NumPy of the browser
;; has no BLAS; with this its products are 10 times as fast. Made by `wat2wasm sgemm.wat`.
;; b is taken in panels of 8 columns and up to 256 rows, copied to `panel` (256 * 8 floats) so that
;; they lie together; the kernel keeps a tile of 4 rows and 8 columns of c in registers.
(module
  (import "env" "memory" (memory 1))

  ;; rows of b (height of them) from `b`, `width` columns, to the panel; the rest is zero.
  (func $pack (param $b i32) (param $panel i32) (param $height i32) (param $width i32)
              (param $stride i32)
    (local $j i32)
    (if (i32.eq (local.get $width) (i32.const 8))
      (then
        (loop $rows
          (v128.store (local.get $panel) (v128.load (local.get $b)))
          (v128.store offset=16 (local.get $panel) (v128.load offset=16 (local.get $b)))
          (local.set $panel (i32.add (local.get $panel) (i32.const 32)))
          (local.set $b (i32.add (local.get $b) (local.get $stride)))
          (br_if $rows (local.tee $height (i32.sub (local.get $height) (i32.const 1)))))
        (return)))
    (loop $rows
      (v128.store (local.get $panel) (v128.const f32x4 0 0 0 0))
      (v128.store offset=16 (local.get $panel) (v128.const f32x4 0 0 0 0))
      (local.set $j (i32.const 0))
      (loop $columns
        (f32.store (i32.add (local.get $panel) (i32.shl (local.get $j) (i32.const 2)))
          (f32.load (i32.add (local.get $b) (i32.shl (local.get $j) (i32.const 2)))))
        (local.set $j (i32.add (local.get $j) (i32.const 1)))
        (br_if $columns (i32.lt_u (local.get $j) (local.get $width))))
      (local.set $panel (i32.add (local.get $panel) (i32.const 32)))
      (local.set $b (i32.add (local.get $b) (local.get $stride)))
      (br_if $rows (local.tee $height (i32.sub (local.get $height) (i32.const 1))))))

  ;; Adds 8 sums to the first `width` numbers at c.
  (func $add (param $c i32) (param $low v128) (param $high v128) (param $width i32)
    (local $j i32)
    (if (i32.eq (local.get $width) (i32.const 8))
      (then
        (v128.store (local.get $c) (f32x4.add (v128.load (local.get $c)) (local.get $low)))
        (v128.store offset=16 (local.get $c)
          (f32x4.add (v128.load offset=16 (local.get $c)) (local.get $high)))
        (return)))
    (loop $columns
      (f32.store (local.get $c)
        (f32.add (f32.load (local.get $c)) (f32x4.extract_lane 0 (local.get $low))))
      ;; Turn the lanes: the next one comes to the front.
      (local.set $low (i8x16.shuffle 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19
        (local.get $low) (local.get $high)))
      (local.set $high (i8x16.shuffle 4 5 6 7 8 9 10 11 12 13 14 15 0 1 2 3
        (local.get $high) (local.get $high)))
      (local.set $c (i32.add (local.get $c) (i32.const 4)))
      (local.set $j (i32.add (local.get $j) (i32.const 1)))
      (br_if $columns (i32.lt_u (local.get $j) (local.get $width)))))

  ;; Four rows of a times the panel.
  (func $tile4 (param $a i32) (param $panel i32) (param $c i32) (param $height i32)
               (param $width i32) (param $row_a i32) (param $row_c i32)
    (local $a1 i32) (local $a2 i32) (local $a3 i32) (local $x v128) (local $y v128) (local $s v128)
    (local $c00 v128) (local $c01 v128) (local $c10 v128) (local $c11 v128)
    (local $c20 v128) (local $c21 v128) (local $c30 v128) (local $c31 v128)
    (local.set $a1 (i32.add (local.get $a) (local.get $row_a)))
    (local.set $a2 (i32.add (local.get $a1) (local.get $row_a)))
    (local.set $a3 (i32.add (local.get $a2) (local.get $row_a)))
    (loop $rows
      (local.set $x (v128.load (local.get $panel)))
      (local.set $y (v128.load offset=16 (local.get $panel)))
      (local.set $s (v128.load32_splat (local.get $a)))
      (local.set $c00 (f32x4.add (local.get $c00) (f32x4.mul (local.get $s) (local.get $x))))
      (local.set $c01 (f32x4.add (local.get $c01) (f32x4.mul (local.get $s) (local.get $y))))
      (local.set $s (v128.load32_splat (local.get $a1)))
      (local.set $c10 (f32x4.add (local.get $c10) (f32x4.mul (local.get $s) (local.get $x))))
      (local.set $c11 (f32x4.add (local.get $c11) (f32x4.mul (local.get $s) (local.get $y))))
      (local.set $s (v128.load32_splat (local.get $a2)))
      (local.set $c20 (f32x4.add (local.get $c20) (f32x4.mul (local.get $s) (local.get $x))))
      (local.set $c21 (f32x4.add (local.get $c21) (f32x4.mul (local.get $s) (local.get $y))))
      (local.set $s (v128.load32_splat (local.get $a3)))
      (local.set $c30 (f32x4.add (local.get $c30) (f32x4.mul (local.get $s) (local.get $x))))
      (local.set $c31 (f32x4.add (local.get $c31) (f32x4.mul (local.get $s) (local.get $y))))
      (local.set $panel (i32.add (local.get $panel) (i32.const 32)))
      (local.set $a (i32.add (local.get $a) (i32.const 4)))
      (local.set $a1 (i32.add (local.get $a1) (i32.const 4)))
      (local.set $a2 (i32.add (local.get $a2) (i32.const 4)))
      (local.set $a3 (i32.add (local.get $a3) (i32.const 4)))
      (br_if $rows (local.tee $height (i32.sub (local.get $height) (i32.const 1)))))
    (call $add (local.get $c) (local.get $c00) (local.get $c01) (local.get $width))
    (local.set $c (i32.add (local.get $c) (local.get $row_c)))
    (call $add (local.get $c) (local.get $c10) (local.get $c11) (local.get $width))
    (local.set $c (i32.add (local.get $c) (local.get $row_c)))
    (call $add (local.get $c) (local.get $c20) (local.get $c21) (local.get $width))
    (local.set $c (i32.add (local.get $c) (local.get $row_c)))
    (call $add (local.get $c) (local.get $c30) (local.get $c31) (local.get $width)))

  ;; One row of a times the panel.
  (func $tile1 (param $a i32) (param $panel i32) (param $c i32) (param $height i32)
               (param $width i32)
    (local $s v128) (local $c0 v128) (local $c1 v128)
    (loop $rows
      (local.set $s (v128.load32_splat (local.get $a)))
      (local.set $c0 (f32x4.add (local.get $c0)
        (f32x4.mul (local.get $s) (v128.load (local.get $panel)))))
      (local.set $c1 (f32x4.add (local.get $c1)
        (f32x4.mul (local.get $s) (v128.load offset=16 (local.get $panel)))))
      (local.set $panel (i32.add (local.get $panel) (i32.const 32)))
      (local.set $a (i32.add (local.get $a) (i32.const 4)))
      (br_if $rows (local.tee $height (i32.sub (local.get $height) (i32.const 1)))))
    (call $add (local.get $c) (local.get $c0) (local.get $c1) (local.get $width)))

  ;; All rows of a times one panel.
  (func $rows (param $m i32) (param $a i32) (param $panel i32) (param $c i32) (param $height i32)
              (param $width i32) (param $row_a i32) (param $row_c i32)
    (block $done
      (loop $fours
        (br_if $done (i32.lt_u (local.get $m) (i32.const 4)))
        (call $tile4 (local.get $a) (local.get $panel) (local.get $c) (local.get $height)
          (local.get $width) (local.get $row_a) (local.get $row_c))
        (local.set $a (i32.add (local.get $a) (i32.shl (local.get $row_a) (i32.const 2))))
        (local.set $c (i32.add (local.get $c) (i32.shl (local.get $row_c) (i32.const 2))))
        (local.set $m (i32.sub (local.get $m) (i32.const 4)))
        (br $fours)))
    (block $done
      (loop $ones
        (br_if $done (i32.eqz (local.get $m)))
        (call $tile1 (local.get $a) (local.get $panel) (local.get $c) (local.get $height)
          (local.get $width))
        (local.set $a (i32.add (local.get $a) (local.get $row_a)))
        (local.set $c (i32.add (local.get $c) (local.get $row_c)))
        (local.set $m (i32.sub (local.get $m) (i32.const 1)))
        (br $ones))))

  ;; c must be zero before. All of m, n, k are at least 1; addresses are in bytes.
  (func (export "sgemm") (param $m i32) (param $n i32) (param $k i32)
                         (param $a i32) (param $b i32) (param $c i32) (param $panel i32)
    (local $row_a i32) (local $row_b i32) (local $j i32) (local $p i32)
    (local $height i32) (local $width i32)
    (local.set $row_a (i32.shl (local.get $k) (i32.const 2)))
    (local.set $row_b (i32.shl (local.get $n) (i32.const 2)))
    (loop $deep
      (local.set $height (i32.sub (local.get $k) (local.get $p)))
      (if (i32.gt_u (local.get $height) (i32.const 256))
        (then (local.set $height (i32.const 256))))
      (local.set $j (i32.const 0))
      (loop $across
        (local.set $width (i32.sub (local.get $n) (local.get $j)))
        (if (i32.gt_u (local.get $width) (i32.const 8))
          (then (local.set $width (i32.const 8))))
        (call $pack
          (i32.add (i32.add (local.get $b) (i32.mul (local.get $p) (local.get $row_b)))
            (i32.shl (local.get $j) (i32.const 2)))
          (local.get $panel) (local.get $height) (local.get $width) (local.get $row_b))
        (call $rows (local.get $m)
          (i32.add (local.get $a) (i32.shl (local.get $p) (i32.const 2)))
          (local.get $panel)
          (i32.add (local.get $c) (i32.shl (local.get $j) (i32.const 2)))
          (local.get $height) (local.get $width) (local.get $row_a) (local.get $row_b))
        (local.set $j (i32.add (local.get $j) (i32.const 8)))
        (br_if $across (i32.lt_u (local.get $j) (local.get $n))))
      (local.set $p (i32.add (local.get $p) (i32.const 256)))
      (br_if $deep (i32.lt_u (local.get $p) (local.get $k))))))

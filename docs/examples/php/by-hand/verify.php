<?php

declare(strict_types=1);

const TOLERANCE = 5 * 60; // seconds that a message may be old, or the sender's clock ahead

// Throws an error unless the message is genuine and of these minutes.
function verify(string $body, array $headers): void
{
    [$prefix, $encoded] = explode('_', getenv('WEBHOOK_SECRET') . '_', 3);
    $key = base64_decode($encoded, true);
    if ($prefix !== 'whsec' || $key === false || strlen($key) < 24) {
        throw new RuntimeException("WEBHOOK_SECRET must be the webhook's secret, whsec_…");
    }
    $id = $headers['webhook-id'] ?? '';
    $timestamp = $headers['webhook-timestamp'] ?? '';
    if ($id === '' || !preg_match('/\A\d+\z/', $timestamp)) {
        throw new RuntimeException('the webhook-id or the webhook-timestamp is missing or malformed');
    }
    if (abs(time() - (int) $timestamp) > TOLERANCE) {
        throw new RuntimeException('the webhook-timestamp is too old or too new');
    }
    $expected = 'v1,' . base64_encode(hash_hmac('sha256', "$id.$timestamp.$body", $key, true));
    foreach (explode(' ', $headers['webhook-signature'] ?? '') as $signature) {
        if (hash_equals($expected, $signature)) { // takes the same time wherever they differ
            return;
        }
    }
    throw new RuntimeException('no signature matches');
}

<?php
// Takes in the messages of Plausible Webhooks: each once, into a folder.

declare(strict_types=1);

ini_set('display_errors', '0'); // a warning on the page would be sent with 200

require __DIR__ . '/verify.php';

define('INBOX', getenv('INBOX') ?: dirname(__DIR__) . '/inbox'); // where no web server serves it
const LARGEST_BODY = 4 * 1024 * 1024;
const ID_FORM = '/\A[A-Za-z0-9_-]{1,100}\z/'; // the id becomes a file's name

if ($_SERVER['REQUEST_METHOD'] !== 'POST') {
    answer(404, 'POST to this address');
}
// The bytes as they came: JSON that was parsed and written again has another signature.
$body = file_get_contents('php://input', false, null, 0, LARGEST_BODY + 1);
if (strlen($body) > LARGEST_BODY) {
    answer(413, 'the body is too large');
}
$headers = [
    'webhook-id' => $_SERVER['HTTP_WEBHOOK_ID'] ?? null,
    'webhook-timestamp' => $_SERVER['HTTP_WEBHOOK_TIMESTAMP'] ?? null,
    'webhook-signature' => $_SERVER['HTTP_WEBHOOK_SIGNATURE'] ?? null,
];
try {
    verify($body, $headers);
} catch (Throwable $error) {
    answer(401, $error->getMessage());
}
try {
    $isNew = keep($headers['webhook-id'], $body);
} catch (Throwable $error) {
    error_log($error->getMessage());
    answer(500, 'the message cannot be kept');
}
http_response_code(204);
if (function_exists('fastcgi_finish_request')) {
    fastcgi_finish_request(); // the sender has its answer
}
if ($isNew) {
    work(json_decode($body, true, 512, JSON_THROW_ON_ERROR));
}

function answer(int $status, string $text): never
{
    http_response_code($status);
    header('Content-Type: text/plain');
    exit($text);
}

// Stores a message, and tells whether it is new. A name is linked once, whoever else tries at the
// same time, and the file behind it is complete.
function keep(string $id, string $body): bool
{
    if (!preg_match(ID_FORM, $id)) {
        throw new InvalidArgumentException('the webhook-id is malformed');
    }
    is_dir(INBOX) || @mkdir(INBOX, 0700, true); // another request may do the same
    $part = INBOX . '/part-' . bin2hex(random_bytes(16));
    $name = INBOX . "/$id.json";
    try {
        if (@file_put_contents($part, $body) !== strlen($body)) {
            throw new RuntimeException('the inbox cannot be written');
        }
        if (@link($part, $name)) {
            return true;
        }
        if (!file_exists($name)) {
            throw new RuntimeException('the message cannot be linked');
        }
        return false;
    } finally {
        @unlink($part);
    }
}

// Here yours begins.
function work(array $message): void
{
    if ($message['type'] === 'batch') {
        array_walk($message['data']['messages'], work(...));
        return;
    }
    error_log($message['type'] . ' ' . $message['data']['id']);
}
